"""Names as people write them; what has no better one keeps its own."""

_DATASETS = {"mvtec": "MVTec AD", "visa": "VisA"}
_BACKBONES = {
    "dinov3": "DINOv3",
    "dinov2": "DINOv2",
    "siglip": "SigLIP",
    "openclip": "OpenCLIP",
    "gabor": "Gabor energies",
}
_OPTIONS = {"width": "C", "k": "k", "topk_guides": "k_g"}
_FIELDS = {
    "loss": "loss",
    "fvu": "FVU",
    "dead": "dead atoms",
    **{
        f"{average}{measure}_{guide}": f"{guide} guide{told}"
        for average, told in (("", ""), ("ema_", ", averaged"))
        for measure in ("nnz", "l1")
        for guide in ("normal", "anomaly")
    },
}


def dataset_words(name: str) -> str:
    """Give `MVTec AD` for `mvtec`."""
    return _DATASETS.get(name, name)


def backbone_words(name: str) -> str:
    """Give `DINOv3` for `dinov3`."""
    return _BACKBONES.get(name, name)


def transfer_words(aux: str, target: str, backbone: str = "") -> str:
    """Say what was fitted on what and scored where: `VisA → MVTec AD, DINOv3`."""
    said = f"{dataset_words(aux)} → {dataset_words(target)}"
    return f"{said}, {backbone_words(backbone)}" if backbone else said


def option_words(name: str, value: object) -> str:
    """Say a setting: `C = 4096`, `beta = 0.001`; a stage before the name is left out.

    Layers say `layer 5`, and several that meet `layers 5, 8 and 11`.
    """
    field = name.rpartition(".")[2]
    if field == "layer":
        *first, last = str(value).split("+")
        return f"layers {', '.join(first)} and {last}" if first else f"layer {last}"
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{_OPTIONS.get(field, field.replace('_', ' '))} = {shown}"


def field_words(name: str) -> str:
    """Give what a field of a training log is called: `normal guide` for `nnz_normal`."""
    return _FIELDS.get(name, name.replace("_", " "))
