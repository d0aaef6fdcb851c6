"""Which backbone a name that is none may have meant."""

from difflib import get_close_matches

from pipeline.backbones.presets import PRESETS

_TIMM_MODULES = ("vision_transformer", "eva", "deit", "beit")
"""timm's modules of models with a plain grid of patch tokens."""


def near_backbone(name: str) -> str:
    """Give `; did you mean 'timm:vit_tiny_patch16_224'?` where a name is like one, else nothing.

    Libraries are asked only here, where nothing goes on anyway.
    """
    bare = name.rpartition(":")[2].removeprefix("timm/")
    found = _near_timm(bare, 1.0) or _near_preset(name) or _near_timm(bare) or _near_clip(bare)
    return f"; did you mean {found!r}?" if found else ""


def _near_preset(name: str) -> str | None:
    """Find a preset spelt otherwise (`DINO-v2`), or within another's name for its model."""
    known = (*PRESETS, "gabor")
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    within = [preset for preset in known if preset in plain]
    close = within[:1] or get_close_matches(plain, known, n=1, cutoff=0.7)
    return close[0] if close else None


def _near_timm(name: str, cutoff: float = 0.75) -> str | None:
    import timm

    stem = name.lower().replace("-", "_")
    models = [model for kind in _TIMM_MODULES for model in timm.list_models(module=kind)]
    if stem.partition(".")[0] in models:
        return f"timm:{stem}"
    usual = sorted(models, key=lambda model: ("patch16_224" not in model, len(model)))
    begin = [model for model in usual if stem and model.startswith(stem)] if cutoff < 1 else []
    close = begin[:1] or get_close_matches(stem, models, n=1, cutoff=cutoff)
    return f"timm:{close[0]}" if close else None


def _near_clip(name: str) -> str | None:
    import open_clip

    model, _, tag = name.partition("/")
    models = {known.lower(): known for known in open_clip.list_models()}
    close = get_close_matches(model.lower(), models, n=1, cutoff=0.75)
    tags = open_clip.list_pretrained_tags_by_model(models[close[0]]) if close else []
    if not tags:
        return "openclip" if name.lower() == "clip" else None
    chosen, weights = models[close[0]], tag if tag in tags else tags[0]
    quick = f"{chosen}-quickgelu"
    needs_quick = open_clip.get_pretrained_cfg(chosen, weights).get("quick_gelu", False)
    return f"open_clip:{quick if needs_quick and quick in models.values() else chosen}/{weights}"
