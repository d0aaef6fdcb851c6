"""Pictures and masks where a dataset would have them; every picture has bytes of its own."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 12, 8


def picture(root: Path, *paths: str) -> None:
    for path in paths:
        rng = np.random.default_rng(zlib.crc32(f"{root.name}/{path}".encode()))
        save(root, path, rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def mask(root: Path, *paths: str, value: int = 255, columns: Sequence[int] = (2, 3)) -> None:
    for path in paths:
        pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
        pixels[3:6, list(columns)] = value
        save(root, path, pixels)


def blank(root: Path, *paths: str) -> None:
    for path in paths:
        save(root, path, np.zeros((HEIGHT, WIDTH), np.uint8))


def save(root: Path, path: str, pixels: np.ndarray) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(root / path)


def write_json(root: Path, path: str, content: Any) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    # as the generators of this field write it
    (root / path).write_text(json.dumps(content, indent=4) + "\n")


def write_lines(root: Path, path: str, rows: Sequence[Any]) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("".join(json.dumps(row) + "\n" for row in rows))
