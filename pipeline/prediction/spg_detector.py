"""Judge images with an exported detector; written beside it by `spg-pipe export`.

    from spg_detector import Detector
    detector = Detector.from_onnx("detector.onnx")
    print(detector.predict("photo.png"))

or `python spg_detector.py detector.onnx photo.png ...`. It needs numpy, pillow and onnxruntime. How
an image becomes the model's input, and the threshold, are read from the file's metadata.
"""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageOps

KIND = "onnx-detector"
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
EIGHT_BIT = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
MOST_PIXELS = 89_478_485
MOST_A_SIDE = 1 << 20
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class BadImage(ValueError):
    """An image that cannot be judged; the message names it and says why."""


class Prediction(NamedTuple):
    """What is said of one image."""

    score: float
    """In [0, 1], larger is more anomalous."""
    verdict: str | None
    """`anomalous` from the threshold on, `normal` below; None where there is no threshold."""
    map: NDArray[np.float32]
    """`(height, width)` of the model's input, in [0, 1]."""


class Detector:
    """An exported detector, loaded."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        described = json.loads(session.get_modelmeta().custom_metadata_map.get("spg", "{}"))
        if described.get("kind") != KIND:
            raise ValueError("this ONNX file was not written by `spg-pipe export`")
        self.session = session
        self.described: dict[str, Any] = described
        self.spec: dict[str, Any] = described["backbone"]["covers"]
        chosen = described.get("threshold")
        self.threshold: float | None = None if chosen is None else chosen["value"]
        """Score from which an image is anomalous; set it to your own where you have one."""

    @classmethod
    def from_onnx(
        cls, path: str | Path, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> "Detector":
        """Load a file. Raises: ValueError for one that is not ours, onnxruntime's own errors."""
        return cls(onnxruntime.InferenceSession(str(path), providers=list(providers)))

    def predict(self, image: str | Path | Image.Image) -> Prediction:
        """Judge an image file, or a picture that Pillow has decoded. Raises: BadImage."""
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[str | Path | Image.Image]) -> list[Prediction]:
        """Judge several images in one pass; all are in memory. Raises: BadImage."""
        if not images:
            return []
        pixels = np.stack([self.prepare(image) for image in images])
        maps, scores = self.session.run(["map", "score"], {"pixels": pixels})
        return [
            Prediction(float(score), self._verdict(float(score)), one)
            for one, score in zip(maps, scores, strict=True)
        ]

    def prepare(self, image: str | Path | Image.Image) -> NDArray[np.float32]:
        """Turn an image into the model's input `(3, height, width)`, RGB in [0, 1]."""
        picture = image if isinstance(image, Image.Image) else _open(Path(image))
        rgb = _as_rgb(picture, str(image), turn=self.spec["exif"])
        size = (self.spec["width"], self.spec["height"])
        resample = FILTERS[self.spec["resize_filter"]]
        if self.spec.get("resize_values") == "float":
            # scaled before it is resized; Pillow's own filter, on floats
            planes = [
                np.asarray(Image.fromarray(plane.astype(np.float32) / 255).resize(size, resample))
                for plane in np.moveaxis(np.asarray(rgb), 2, 0)
            ]
            return np.stack(planes)
        small = np.asarray(rgb.resize(size, resample), np.float32) / 255
        return np.ascontiguousarray(small.transpose(2, 0, 1))

    def _verdict(self, score: float) -> str | None:
        if self.threshold is None:
            return None
        return "anomalous" if score >= self.threshold else "normal"


def _open(path: Path) -> Image.Image:
    if path.exists() and not path.is_file():  # reading a pipe or a device may never end
        raise BadImage(f"{path}: not a regular file")
    try:
        picture = Image.open(io.BytesIO(path.read_bytes()), formats=FORMATS)
        if picture.width * picture.height > MOST_PIXELS or max(picture.size) > MOST_A_SIDE:
            raise BadImage(f"{path}: {picture.width} x {picture.height} pixels are too many")
        picture.load()
    except BadImage:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        raise BadImage(f"{path}: cannot be decoded ({error or type(error).__name__})") from error
    return picture


def _as_rgb(picture: Image.Image, name: str, *, turn: bool) -> Image.Image:
    if picture.mode not in EIGHT_BIT:
        raise BadImage(f"{name}: mode {picture.mode} has more than 8 bits a channel; convert it")
    if turn:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")  # a palette with transparency
    return picture.convert("RGB")


def main(arguments: Sequence[str]) -> int:
    """Print a line an image; give the exit code, 1 where one could not be judged."""
    if len(arguments) < 2:
        print("usage: python spg_detector.py detector.onnx IMAGE ...", file=sys.stderr)
        return 2
    try:
        detector, failed = Detector.from_onnx(arguments[0]), False
    except Exception as error:  # noqa: BLE001 - onnxruntime raises many kinds
        print(f"{arguments[0]} is not a detector: {error}", file=sys.stderr)
        return 2
    for path in arguments[1:]:
        try:
            found = detector.predict(path)
        except BadImage as error:
            print(f"-\terror\t{error}")
            failed = True
        else:
            print(f"{found.score:.4f}\t{found.verdict or '-'}\t{path}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
