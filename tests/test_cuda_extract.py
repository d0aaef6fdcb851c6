"""An extraction on a GPU that is not there: image files to the tokens a shard is made of."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.plain_vits import PLAIN
from cache.store import open_store
from manifests.build import build_manifest
from pipeline.backbones.load import Backbone, load_backbone
from pipeline.configs import ExtractConfig
from pipeline.extraction import shards as shards_module
from pipeline.extraction.compute import ShardArrays, compute_shard
from pipeline.extraction.model_inputs import model_inputs
from pipeline.extraction.shards import open_extract_job, seconds_an_image
from spg_core.compiling import Compiled
from spg_core.errors import ConfigError
from tests.narrow_presets import DEPTH, N_HEADS, WIDTH, shrunk  # noqa: F401
from tests.pretended_gpu import needs_cuda_build, pretend_card, pretended_gpu
from tests.tiny_images import write_images

pytestmark = [needs_cuda_build, pytest.mark.usefixtures("shrunk")]
CUDA = torch.device("cuda")
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An H100 that is not there, to which models may move."""
    pretend_card(monkeypatch)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)


def weights_of(name: str, folder: Path) -> Path:
    torch.manual_seed(3)
    torch.save(PLAIN[name].weights(PLAIN[name], WIDTH, DEPTH, N_HEADS), folder / "weights.pth")
    return folder / "weights.pth"


def extracted(backbone: Backbone, images: Path) -> list[ShardArrays]:
    built = build_manifest(images, layout="mvtec", dataset="x", split="test", workers=1)
    inputs = model_inputs(built.manifest, images, backbone.specs, 2, None)
    return compute_shard([backbone], inputs, built.manifest.n_images, lambda _: None)


@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", PLAIN)
def test_images_become_tokens_and_nobody_waits_but_for_a_whole_shard(
    name: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []  # how much the GPU had been told when it was waited for
    write_images(tmp_path / "images", n_good=3, n_bad=2, side=40)
    size = 4 * PLAIN[name].patch
    here = load_backbone(name, weights=weights_of(name, tmp_path), image_size=size, device="cpu")

    with pretended_gpu() as gpu:
        backbone = Backbone(here.model, [replace(here.spec, compute_dtype=dtype)], CUDA)
        gpu.waits.clear()
        gpu.sent.clear()
        stream = SimpleNamespace(synchronize=lambda: done.append(gpu.operations.total()))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: stream)
        [shard] = extracted(backbone, tmp_path / "images")

    assert shard.tokens.shape == (5, 16, WIDTH if name != "openclip" else WIDTH * 3 // 4)
    assert shard.tokens.dtype == np.float16
    assert done == [gpu.operations.total()]  # once, and nothing is told it afterwards
    assert HALVES.get(dtype, torch.float32) in gpu.products
    # attention is taken apart here, and computed in float32, as it is not on a GPU
    assert gpu.products <= {HALVES.get(dtype, torch.float32), torch.float32}
    # DINOv3's images are resized as floats; all others are bytes, a quarter of them
    n_numbers = 5 * 3 * size * size
    assert gpu.sent[torch.float32 if name == "dinov3" else torch.uint8] >= n_numbers
    assert name == "dinov3" or gpu.sent[torch.float32] < n_numbers
    # timm makes the angles of DINOv3's rotary positions on the CPU, anew for each batch
    theirs = 3 if name == "dinov3" else 0
    assert gpu.waits == ["aten._to_copy.default at timm_models.py:58"] * theirs


def test_a_models_time_is_that_of_the_gpu_and_not_of_telling_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images", n_good=1, n_bad=0, side=40)
    config = ExtractConfig(
        backbone=("dinov2",),
        dataset="mvtec",
        device="cpu",
        weights=(f"dinov2={weights_of('dinov2', tmp_path)}",),
        root=str(tmp_path / "images"),
        image_size=4 * PLAIN["dinov2"].patch,
    )
    maker = open_extract_job(open_store(tmp_path), config)
    done: list[int] = []  # what the host had waited for as the clock was read

    with pretended_gpu() as gpu:
        backbone = Backbone(maker.backbones[0].model, maker.backbones[0].specs, CUDA)
        maker.backbones = [backbone]

        def clock() -> float:
            done.append(sum("scalar" in one for one in gpu.waits))
            return float(len(done))

        monkeypatch.setattr(shards_module, "perf_counter", clock)
        seconds = seconds_an_image(maker, [0])

    assert seconds == 1 / 4
    assert done == [0, 1, 1, 2]


def test_halves_are_for_gpus_and_gabor_is_float32_everywhere() -> None:
    with pretended_gpu(), pytest.raises(ConfigError, match="gabor computes in float32"):
        load_backbone("gabor", image_size=96, device="cuda", compute_dtype="bfloat16")


def lacking(tokens: torch.Tensor) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def test_a_compiled_step_that_lacks_memory_says_so_and_stays_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = Compiled(lacking, "aot_eager")
    monkeypatch.setattr(step, "_compiled", lacking)

    with pytest.raises(torch.OutOfMemoryError, match=r"20\.00 GiB"):
        step(torch.zeros(2))

    assert step.is_compiled
    assert step.remark is None
