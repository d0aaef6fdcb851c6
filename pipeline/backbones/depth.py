"""How many blocks a backbone has, without its weights."""

from functools import cache

from spg_core.errors import ConfigError


@cache
def n_blocks(library: str, model: str) -> int:
    """Give the depth of a library's model, by the names that a cache states.

    Raises: ConfigError for a descriptor that has no blocks; BackboneError for an unknown model.
    """
    match library:
        case "timm":
            from pipeline.backbones.timm_models import draft_of

            return len(draft_of(model).blocks)
        case "open_clip":
            from open_clip import get_model_config

            config = get_model_config(model) or {}
            return int(config.get("vision_cfg", {}).get("layers", 0))
    raise ConfigError(f"--layer does not apply to {model}, which has no blocks; leave it out")
