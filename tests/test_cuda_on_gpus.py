"""What only a real GPU can show; `make gpu` runs these."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.backbones.load import load_backbone
from spg_core.anomaly_map import image_scores, map_operator
from spg_core.guide_config import GuideConfig
from spg_core.guide_step import GuideFit, GuideTrainer
from spg_core.pooling import Pooling
from spg_core.sae_config import SaeConfig
from spg_core.sae_step import SaeTrainer
from spg_core.types import PatchGrid

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.gpu
@needs_gpu
def test_sae_steps_wait_for_nothing() -> None:
    trainer = SaeTrainer(SaeConfig(width=256, k=8), 64, "cuda", compiler="none")
    tokens = torch.randn(512, 64, device="cuda")
    trainer.step(tokens)

    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step(tokens)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("compiler", ["none", "inductor"])
def test_guides_and_maps_are_those_of_the_cpu(compiler: str) -> None:
    operator = map_operator(PatchGrid(3, 2), 12, 10, sigma=1)
    fit = GuideFit(
        dictionary=torch.randn(7, 5), alive=torch.ones(7, dtype=torch.bool), config=GuideConfig()
    )
    here = GuideTrainer(fit, operator=operator, compiler="none")
    there = GuideTrainer(fit, operator=operator, device="cuda", compiler=compiler)  # type: ignore[arg-type]
    tokens, masks = torch.randn(3, 6, 5), (torch.rand(3, 12, 10) > 0.8).to(torch.uint8)

    for _ in range(5):
        here.step(tokens, masks)
        there.step(tokens.cuda(), masks.cuda())
    values = torch.rand(3, 6)
    maps = operator.to("cuda")(values.cuda())

    torch.testing.assert_close(there.ema.cpu(), here.ema, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps.cpu(), operator(values), rtol=1e-5, atol=1e-6)
    pooled = image_scores(maps, Pooling(tau=0.02)).cpu()
    torch.testing.assert_close(pooled, image_scores(operator(values), Pooling(tau=0.02)))


@pytest.mark.gpu
@needs_gpu
def test_float32_tokens_are_those_of_the_cpu_whatever_the_batch() -> None:
    pixels = torch.rand(5, 3, 96, 96) * 2 - 1
    expected = load_backbone("gabor", image_size=96)(pixels).tokens
    backbone = load_backbone("gabor", image_size=96, device="cuda")

    together = backbone(pixels).tokens.cpu()
    alone = torch.cat([backbone(one[None]).tokens for one in pixels]).cpu()

    torch.testing.assert_close(together, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)


def test_the_gpu_benchmark_runs_from_end_to_end(tmp_path: Path) -> None:
    """On a CPU, at sizes that say nothing: so that it is not the script that fails on the day."""
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--small"]

    ran = subprocess.run(
        [*command, "--skip-tests", "--out", str(out)], capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stderr
    found = json.loads(out.read_text())
    assert {"one product", "top k", "SAE step", "guides", "maps"} <= found.keys()
    assert not any("error" in one for one in found.values() if isinstance(one, dict))
