"""The generated sample for `spg-pipe demo`: two small datasets of disjoint products.

    root/auxiliary    raw VisA layout   cloth, wood, gear, circuit_board
    root/target       MVTec AD layout   brushed_metal, granite, leather, capsule, bottle_cap
    root/sample.json  what made it; its presence means complete

docs/sample.md says how hard the sample is and how masks are made.
"""

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.sample.shot import AUXILIARY, TARGET, Product, SampleConfig, draw_shot
from spg_core.errors import ConfigError, DatasetError

_MARKER = "sample.json"
_SAMPLE_VERSION = 1
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Sample:
    """Where a complete sample lies."""

    auxiliary: Path
    """Root of the labelled dataset that guides are fitted on, raw VisA layout."""
    target: Path
    """Root of the dataset that is only scored, MVTec AD layout."""


def write_sample(root: Path, config: SampleConfig | None = None) -> Sample:
    """Write the sample into `root`, or find it there, and say where its two datasets lie.

    Raises:
        ConfigError: `root` holds a sample made with other settings.
        DatasetError: `root` holds something that is not a sample; nothing is touched.
    """
    config = config or SampleConfig()
    root = Path(root).resolve()
    sample = Sample(auxiliary=root / "auxiliary", target=root / "target")
    if _is_complete(root, config):
        return sample
    root.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}-"))
    try:
        _write_datasets(building, config)
        (building / _MARKER).write_text(_marker_text(config), encoding="utf-8")
        building.chmod(0o755)
        _publish(building, root, config)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return sample


def _marker_text(config: SampleConfig) -> str:
    return json.dumps({"spg_pipe_sample": _SAMPLE_VERSION, **asdict(config)}, indent=2) + "\n"


def _is_complete(root: Path, config: SampleConfig) -> bool:
    """True for this very sample, False for nothing or an empty folder; raise for anything else."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise DatasetError(f"{root} is a file; name a new or empty folder for the sample")
    marker = root / _MARKER
    if not marker.is_file():
        if any(root.iterdir()):
            raise DatasetError(
                f"{root} is not empty and holds no {_MARKER}, so it is not a generated sample; "
                "name a new or empty folder"
            )
        return False
    found = marker.read_text(encoding="utf-8", errors="replace")
    if found != _marker_text(config):
        raise ConfigError(
            f"{root} holds a sample made with other settings ({' '.join(found.split())}, wanted "
            f"{' '.join(_marker_text(config).split())}); remove it or name another folder"
        )
    return True


def _publish(building: Path, root: Path, config: SampleConfig) -> None:
    """Give a finished folder its name; somebody else's equal sample is as good."""
    try:
        os.replace(building, root)  # noqa: PTH105 - an empty folder is replaced, a full one is not
    except OSError:
        if not _is_complete(root, config):
            raise


def _write_datasets(folder: Path, config: SampleConfig) -> None:
    """Draw all images, a few at a time, and write both trees."""
    auxiliary = list(_visa_jobs(folder / "auxiliary", config))
    jobs = [*auxiliary, *_mvtec_jobs(folder / "target", config)]
    # NumPy, SciPy and PIL release the interpreter lock; each job is its own random stream.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(partial(_write_one, config), jobs))
    _write_visa_list(folder / "auxiliary", auxiliary)


@dataclass(frozen=True)
class _Job:
    """One image to draw and where it goes."""

    product: Product
    role: str
    index: int
    defect: str | None
    image_path: Path
    mask_path: Path | None = None
    mask_value: int = 255


def _write_one(config: SampleConfig, job: _Job) -> None:
    shot = draw_shot(job.product, config, job.role, job.index, job.defect)
    job.image_path.parent.mkdir(parents=True, exist_ok=True)
    # The level is for PNG, the other two for JPEG; the suffix says which it is.
    picture = Image.fromarray(shot.image)
    picture.save(job.image_path, compress_level=3, quality=_JPEG_QUALITY, subsampling=0)
    if job.mask_path is not None:
        job.mask_path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shot.mask.astype(np.uint8) * np.uint8(job.mask_value)).save(job.mask_path)


def _planned(product: Product, config: SampleConfig) -> Iterator[tuple[str, int, str | None]]:
    """Role, index and defect of each image of a category, in the order they are listed."""
    for index in range(config.train_images_per_category):
        yield "train", index, None
    defective = config.images_per_category // 2
    for index in range(config.images_per_category - defective):
        yield "normal", index, None
    for index in range(defective):
        yield "anomaly", index, product.defects[index % len(product.defects)]


def _visa_jobs(folder: Path, config: SampleConfig) -> Iterator[_Job]:
    """Raw VisA: `<cat>/Data/{Images,Masks}/...`; a mask holds the class id of its defect."""
    for product in AUXILIARY:
        data = folder / product.name / "Data"
        for role, index, defect in _planned(product, config):
            if defect is None:
                number = index if role == "train" else config.train_images_per_category + index
                image = data / "Images" / "Normal" / f"{number:04d}.JPG"
                yield _Job(product, role, index, None, image)
            else:
                image = data / "Images" / "Anomaly" / f"{index:03d}.JPG"
                mask = data / "Masks" / "Anomaly" / f"{index:03d}.png"
                class_id = 1 + product.defects.index(defect)
                yield _Job(product, role, index, defect, image, mask, class_id)


def _write_visa_list(folder: Path, jobs: list[_Job]) -> None:
    """`split_csv/1cls.csv`: object, split, label, image, mask, with paths from the dataset root."""
    (folder / "split_csv").mkdir()
    with (folder / "split_csv" / "1cls.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("object", "split", "label", "image", "mask"))
        for job in jobs:
            split = "train" if job.role == "train" else "test"
            label = "normal" if job.defect is None else "anomaly"
            image = job.image_path.relative_to(folder).as_posix()
            mask = job.mask_path.relative_to(folder).as_posix() if job.mask_path else ""
            rows.writerow((job.product.name, split, label, image, mask))


def _mvtec_jobs(folder: Path, config: SampleConfig) -> Iterator[_Job]:
    """MVTec AD: `<cat>/{train/good,test/<defect>,ground_truth/<defect>}`, numbered per folder."""
    for product in TARGET:
        root = folder / product.name
        for role, index, defect in _planned(product, config):
            if defect is None:
                part = "train" if role == "train" else "test"
                yield _Job(product, role, index, None, root / part / "good" / f"{index:03d}.png")
            else:
                number = f"{index // len(product.defects):03d}"
                image = root / "test" / defect / f"{number}.png"
                mask = root / "ground_truth" / defect / f"{number}_mask.png"
                yield _Job(product, role, index, defect, image, mask)
