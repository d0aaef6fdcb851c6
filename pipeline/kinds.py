"""The kinds of artifact: how their files are named, what people call them, what makes them."""

from typing import Literal

Kind = Literal["saes", "guides", "memories", "combinations", "scores", "sweeps", "figures"]
"""Also the name of the folder that holds those of a kind."""
DetectorKind = Literal["guides", "memories", "combinations"]
"""Those that score images."""

JSON: dict[Kind, str] = {
    "saes": "sae.json",
    "guides": "guides.json",
    "memories": "memory.json",
    "combinations": "combination.json",
    "scores": "metrics.json",
    "sweeps": "sweep.json",
    "figures": "figure.json",
}
BODY: dict[Kind, str] = {
    "saes": "sae.safetensors",
    "guides": "guides.safetensors",
    "memories": "memory.safetensors",
    "combinations": "combination.safetensors",
    "scores": "images.parquet",
    "sweeps": "sweep.parquet",
    "figures": "points.parquet",
}
"""The file of the numbers, which carries the document."""
SAY: dict[Kind, str] = {
    "saes": "SAE",
    "guides": "guides",
    "memories": "memory",
    "combinations": "combination",
    "scores": "scores",
    "sweeps": "sweep",
    "figures": "figure",
}
CHECKPOINT = "checkpoint.safetensors"
"""Beside an artifact of which a fit was cut off: where it stood."""
MAKE: dict[Kind, str] = {
    "saes": "fit-sae",
    "guides": "fit-guides",
    "memories": "fit-memory",
    "combinations": "combine",
    "scores": "score",
    "sweeps": "sweep",
    "figures": "reproduce",
}
"""The command."""


def folder(kind: Kind, identifier: str) -> str:
    """Give the folder of an artifact inside its store."""
    return f"{kind}/{identifier}"
