"""Export: a detector as one ONNX file that needs nothing of ours, checked before it gets its name.

`detector.onnx` takes RGB in [0, 1] at the model's input size and gives map and score. How an image
becomes such an input is written into the file (metadata key `spg`) and beside it (`detector.json`);
`spg_detector.py`, a module of this folder, is laid there too and judges images with the file alone.

The file first gets a temporary name. onnxruntime then runs it on images of several kinds, in a
batch of another size than the one traced, and what it gives is compared with the backbone and the
detector themselves, not with the traced module. Only a file that agrees is published.
"""

import hashlib
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import torch

from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import ScoreConfig
from pipeline.detection.detector import Detector
from pipeline.detection.find import AnyDetector
from pipeline.detection.load import make_detector
from pipeline.detection.memory_part import MemoryPart
from pipeline.files import check_place, new_file, write_file
from pipeline.prediction.export_check import OUTPUTS, compare
from pipeline.prediction.export_module import ExportedDetector
from pipeline.prediction.model import Specs, load_model, specs_of
from pipeline.prediction.sidecar import (
    INPUT,
    Description,
    SidecarDocument,
    describe_file,
    input_of,
    is_sidecar,
    to_text,
)
from pipeline.prediction.threshold import choose_threshold
from spg_core.errors import ArtifactError, BackboneError, ConfigError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
METADATA = "spg"
_LARGEST_BYTES = 2**31 - 2**24  # protobuf's limit on one message, with room for the graph
_RUNTIME = "spg_detector.py"


@dataclass(frozen=True)
class Exported:
    """A published file: its path, those of what lies beside it, and how far it is from ours."""

    path: str
    sidecar: str
    runtime: str
    """A module that judges images with the file; needs numpy, pillow and onnxruntime."""
    document: SidecarDocument = field(repr=False)


def export(
    guides: AnyDetector,
    out: str,
    config: ScoreConfig,
    weights: Sequence[str] = (),
    *,
    threshold_name: str | None = None,
    category: str | None = None,
) -> Exported:
    """Write the detector of `guides` as an ONNX file with a sidecar JSON, and check it.

    Args:
        guides: the fitted guides.
        out: path of the file, ending in `.onnx`; an earlier file of that name is replaced.
        config: pooling, sigma and coefficients that go into the file.
        weights: the backbone's weights file, or NAME=FILE; without it as `load_stored_layers`.
        threshold_name: of the threshold that goes into the file; None is the one of `predict`.
        category: whose threshold goes into the file, where there is one a category.

    Raises:
        ConfigError: the `export` extra is not installed, or `out` is no `.onnx` path; as
            `choose_threshold`.
        BackboneError: the backbone has an operation that ONNX lacks, or is too large for one file.
        ArtifactError: the weights are not those of the guides, or the file does not agree with us.
        StoreError: the file cannot be written, or its sidecar's name is taken by another file.
    """
    _require_packages()
    target = Path(out)
    if target.suffix != ".onnx" or target.is_dir():
        raise ConfigError(f"out is the path of a file that ends in .onnx, got {out}")
    sidecar, runtime = target.with_suffix(".json"), target.with_name(_RUNTIME)
    check_place(target, make_folders=True)
    check_place(sidecar, is_sidecar, make_folders=True)
    threshold = choose_threshold(guides, config, name=threshold_name, category=category)
    check_place(runtime, _is_runtime, make_folders=True)
    detector = make_detector(guides, config)
    _require_guides(detector)
    specs = specs_of(detector)
    _require_one_input(guides.id, specs)
    model = load_model(detector, specs, weights, "cpu")
    loaded = [backbone.spec for backbone in model.backbones]
    told = describe_file(guides, loaded, config, threshold)
    with new_file(target, make_folders=True) as temporary:
        write_onnx(ExportedDetector(model), loaded[0], temporary, told)
        check = compare(temporary, model)
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        document = SidecarDocument(**vars(told), check=check, sha256=digest)
        write_file(sidecar, f"{to_text(document, indent=1)}\n".encode(), is_sidecar)
        write_file(runtime, _runtime_source(), _is_runtime)
    return Exported(str(target), str(sidecar), str(runtime), document)


def _runtime_source() -> bytes:
    # read, not imported: onnxruntime takes a second to load
    return resources.files(__package__).joinpath(_RUNTIME).read_bytes()


def _is_runtime(path: Path) -> bool:
    """Tell whether a file is one that an export of some version wrote: by its first line."""
    with path.open("rb") as file:
        return file.readline(200) == _runtime_source().splitlines(keepends=True)[0]


def _require_guides(detector: Detector) -> None:
    """Refuse a part that is no pair of guides. Raises: ArtifactError."""
    for part in detector.parts:
        if isinstance(part, MemoryPart):
            raise ArtifactError(
                f"{part.id} is a memory, which an ONNX file cannot search; export guides, and "
                "use a memory with predict"
            )


def write_onnx(
    module: ExportedDetector, spec: BackboneSpec, path: Path, document: Description
) -> None:
    """Trace the module with a free batch size and write it with its description inside.

    Raises: BackboneError for what does not fit into ONNX or into one file.
    """
    size_bytes = sum(tensor.nbytes for tensor in module.state_dict().values())
    if size_bytes > _LARGEST_BYTES:
        raise BackboneError(
            f"{spec.name} has {size_bytes} bytes of weights, one ONNX file holds at most "
            f"{_LARGEST_BYTES}; take a smaller backbone"
        )
    # two images: a batch of one would be taken for a constant
    example = torch.rand(2, 3, spec.height, spec.width)
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1)}},
            )
    except torch.onnx.OnnxExporterError as error:
        raise BackboneError(
            f"{spec.name} cannot be written as ONNX ({_cause(error)}); timm and open_clip vision "
            "transformers can"
        ) from error
    assert program is not None
    program.model.metadata_props[METADATA] = to_text(document)
    program.save(str(path), external_data=False)


def _require_one_input(identifier: str, specs: Specs) -> None:
    """Refuse backbones that one picture cannot be prepared for. Raises: ConfigError."""
    told = {
        f"{spec.name} ({spec.width} x {spec.height} px, {spec.resize_filter}, "
        f"{spec.resize_values or '8-bit'}, EXIF {'on' if spec.exif else 'off'})": input_of(spec)
        for spec, *_ in specs.backbones
    }
    if len(set(told.values())) > 1:
        raise ConfigError(
            f"{identifier} has parts on {' and '.join(told)}; one ONNX file takes one input, so "
            "export a detector whose backbones take pictures of one size, resized alike"
        )


def _require_packages() -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"export needs the packages {', '.join(missing)}, which are not installed; "
            "`pip install 'spg-pipe[export]'` brings them"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back onnxscript's remarks on what it does not optimise: 14 lines for a DINOv3."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _cause(error: BaseException) -> str:
    """Find the one line of torch's long message that names the operation."""
    text = str(error)
    found = [line for line in text.splitlines() if "No ONNX function found" in line]
    if found:
        return found[0].partition(">: ")[2].partition(". Failure")[0] or found[0]
    summary = text.partition("## Exception summary")[2].strip().splitlines()
    return summary[0][:200] if summary else text.splitlines()[0][:200]
