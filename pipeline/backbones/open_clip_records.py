"""What open_clip knows of a model and of its weights, as far as it is asked here."""

from pathlib import Path
from typing import TypedDict

from pipeline.backbones.hub import hub_file
from pipeline.backbones.near_names import near_backbone
from spg_core.errors import BackboneError, ConfigError

HUB_FILE_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class Vision(TypedDict, total=False):
    """What is asked of open_clip's record of an image tower."""

    patch_size: int | list[int]
    image_size: int | list[int]
    layers: int
    """A list in those of convolutions, which are refused."""
    width: int
    attentional_pool: bool
    timm_model_name: str


class ModelRecord(TypedDict, total=False):
    """What is asked of its record of a model."""

    embed_dim: int
    vision_cfg: Vision
    quick_gelu: bool


class WeightsRecord(TypedDict, total=False):
    """What is asked of its record of a model's weights."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    hf_hub: str
    url: str
    quick_gelu: bool


def look_up(model_and_tag: str) -> tuple[str, ModelRecord, WeightsRecord]:
    """Look a name up: the model, open_clip's record of it and that of its weights."""
    import open_clip

    model, slash, tag = model_and_tag.rpartition("/")
    if not slash or not model or not tag:
        raise ConfigError(
            f"open_clip:{model_and_tag} names no weights; use open_clip:<model>/<tag>, as in "
            f"open_clip:ViT-B-32-quickgelu/openai (with --weights too: the tag gives mean and std)"
        )
    config = open_clip.get_model_config(model)
    if config is None:
        raise BackboneError(
            f"open_clip has no model {model!r}; see open_clip.list_models()"
            f"{near_backbone(model_and_tag)}"
        )
    vision = config["vision_cfg"]
    if "timm_model_name" in vision:
        raise BackboneError(
            f"the image tower of open_clip:{model} is timm's; use timm:{vision['timm_model_name']}"
        )
    if isinstance(vision["layers"], list) or vision.get("attentional_pool"):
        raise BackboneError(
            f"open_clip:{model} has no plain grid of patch tokens; use a ViT such as "
            f"open_clip:ViT-B-32-quickgelu/openai"
        )
    weights = open_clip.get_pretrained_cfg(model, tag)
    if not weights:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise BackboneError(f"open_clip:{model} has no weights {tag!r}; it has {tags}")
    _check_activation(model, tag, config, weights)
    return model, config, weights


def _check_activation(model: str, tag: str, config: ModelRecord, weights: WeightsRecord) -> None:
    """Refuse weights trained with another activation than the model computes.

    open_clip only warns, and the tokens would be wrong without any other sign.
    """
    import open_clip

    computes = bool(config.get("quick_gelu", False))
    needs = bool(weights.get("quick_gelu", False))
    if computes == needs:
        return
    other = model.removesuffix("-quickgelu") if computes else f"{model}-quickgelu"
    known = other in open_clip.list_models()
    names = {True: "QuickGELU", False: "GELU"}
    raise ConfigError(
        f"open_clip:{model} computes {names[computes]}, but the weights {tag!r} were trained with "
        f"{names[needs]}; use " + (f"open_clip:{other}/{tag}" if known else "other weights")
    )


def hub_weights(config: WeightsRecord, name: str) -> Path:
    """Find the hub's file for an open_clip weights record."""
    repository, _, file_name = config.get("hf_hub", "").rpartition("/")
    if not repository:
        where = f", downloaded from {config['url']}" if config.get("url") else ""
        raise BackboneError(
            f"open_clip knows no hub weights for {name}; give --weights FILE{where}"
        )
    if not file_name:
        return hub_file(repository, HUB_FILE_NAMES, name=name)
    safe = str(Path(file_name).with_suffix(".safetensors"))
    return hub_file(repository, tuple(dict.fromkeys((safe, file_name))), name=name)
