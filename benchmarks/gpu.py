"""Time what a GPU is for, and run the tests that need one: one command, one JSON file.

    python -m benchmarks.gpu [--out gpu.json] [--device cuda] [--small] [--skip-tests]

`make gpu` is this. Sizes are the defaults: d = 1024, C = 4096, k = 32, 12,544 tokens a step, maps
of 448 pixels. Milliseconds are medians of rounds in a row with a wait at the end of each. Beside
each: where the host waited for the device within it (PyTorch's own detector), and peak memory.
`--device cpu --small` runs every line of this on a CPU; its numbers say nothing of a GPU.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.machine.device import device_name
from spg_core.anomaly_map import image_scores, map_operator
from spg_core.guide_config import GuideConfig
from spg_core.guide_step import GuideFit, GuideTrainer, guide_batch
from spg_core.pooling import Pooling
from spg_core.sae_config import SaeConfig
from spg_core.sae_step import SaeTrainer
from spg_core.types import PatchGrid

Found = dict[str, Any]


class Bench:
    """The device, and how much of the sizes to take."""

    def __init__(self, device: torch.device, small: bool) -> None:
        self.device = device
        self.is_cuda = device.type == "cuda"
        self.rounds = 3 if small else 20
        self.d_model, self.width, self.n_tokens = (64, 256, 128) if small else (1024, 4096, 12544)
        self.n_images, self.side = (2, 4) if small else (16, 28)

    def wait(self) -> None:
        """Wait for the device."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def timed(self, run: Callable[[], object]) -> Found:
        """Give milliseconds, waits and peak memory of a call."""
        for _ in range(3):
            run()
        self.wait()
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        seconds = []
        for _ in range(self.rounds):
            start = time.perf_counter()
            run()
            self.wait()
            seconds.append(time.perf_counter() - start)
        found: Found = {"ms": 1e3 * statistics.median(seconds), "waits": self.waits(run)}
        if self.is_cuda:
            found["peak_mb"] = torch.cuda.max_memory_allocated(self.device) / 1e6
        return found

    def waits(self, run: Callable[[], object]) -> list[str] | None:
        """Say where a call made the host wait; None on a CPU, where there is nobody to wait for."""
        if not self.is_cuda:
            return None
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                run()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        told = [one for one in seen if "synchron" in str(one.message)]
        return [f"{Path(one.filename).name}:{one.lineno}" for one in told]


def sae_steps(bench: Bench) -> Found:
    config = SaeConfig(width=bench.width, auxk=bench.width // 8)
    tokens = torch.randn((bench.n_tokens, bench.d_model), device=bench.device)
    found: Found = {}
    for name, compiler in (("eager", "none"), ("compiled", "auto")):
        if name == "compiled" and not bench.is_cuda:
            continue  # `auto` compiles nothing there
        trainer = SaeTrainer(config, bench.d_model, str(bench.device), compiler=compiler)  # type: ignore[arg-type]
        start = time.perf_counter()
        trainer.step(tokens)
        bench.wait()
        found[name] = {"first_s": time.perf_counter() - start}
        found[name] |= bench.timed(lambda trainer=trainer: trainer.step(tokens))  # type: ignore[misc]
        found[name]["remark"] = trainer.remark
    return found


def top_k(bench: Bench) -> Found:
    dtype = torch.bfloat16 if bench.is_cuda else torch.float32
    latents = torch.randn((bench.n_tokens, bench.width), device=bench.device).to(dtype)
    return bench.timed(lambda: torch.topk(latents, 32, dim=1))


def products(bench: Bench) -> Found:
    dtype = torch.bfloat16 if bench.is_cuda else torch.float32
    tokens = torch.randn((bench.n_tokens, bench.d_model), device=bench.device).to(dtype)
    weights = torch.randn((bench.width, bench.d_model), device=bench.device).to(dtype)
    found = bench.timed(lambda: tokens @ weights.T)
    n_operations = 2 * bench.n_tokens * bench.d_model * bench.width
    return found | {"tflops": n_operations / found["ms"] / 1e9}


def guides(bench: Bench) -> Found:
    side, pixels = bench.side, 16 * bench.side
    fit = GuideFit(
        dictionary=torch.randn(bench.width, bench.d_model),
        alive=torch.ones(bench.width, dtype=torch.bool),
        config=GuideConfig(),
    )
    operator = map_operator(PatchGrid(side, side), pixels, pixels, sigma=0)
    trainer = GuideTrainer(fit, operator=operator, device=bench.device, compiler="none")
    tokens = torch.randn((bench.n_images, side * side, bench.d_model), device=bench.device)
    masks = torch.rand((bench.n_images, pixels, pixels), device=bench.device) > 0.9
    batch = guide_batch(trainer.operator, tokens, masks)
    return {
        "batch": bench.timed(lambda: guide_batch(trainer.operator, tokens, masks)),
        "step": bench.timed(lambda: trainer.step_on(batch)),
    }


def maps(bench: Bench) -> Found:
    side, pixels = bench.side, 16 * bench.side
    operator = map_operator(PatchGrid(side, side), pixels, pixels, sigma=4).to(bench.device)
    values = torch.rand((bench.n_images, side * side), device=bench.device)
    return bench.timed(lambda: image_scores(operator(values), Pooling(tau=0.02)))


def tests() -> Found:
    """Run the tests marked `gpu`; skipped ones do not count as run."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return {"exit_code": ran.returncode, "said": ran.stdout.splitlines()[-20:]}


SECTIONS: dict[str, Callable[[Bench], Found]] = {
    "one product": products,
    "top k": top_k,
    "SAE step": sae_steps,
    "guides": guides,
    "maps": maps,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="gpu.json")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--skip-tests", action="store_true")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("no GPU is seen; --device cpu --small tries the script")
    bench = Bench(torch.device(options.device), options.small)
    result: Found = {
        "device": device_name(bench.device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "small": options.small,
    }
    for name, section in SECTIONS.items():
        try:
            result[name] = section(bench)
        except (RuntimeError, OSError) as error:  # the others are measured all the same
            result[name] = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
        print(name, json.dumps(result[name]), flush=True)
        Path(options.out).write_text(json.dumps(result, indent=1))
    if not options.skip_tests:
        result["tests"] = tests()
        print("tests", *result["tests"]["said"], sep="\n")
        Path(options.out).write_text(json.dumps(result, indent=1))
    failed = [name for name in SECTIONS if "error" in result[name]]
    sys.exit(bool(failed) or result.get("tests", {}).get("exit_code", 0))


if __name__ == "__main__":
    main()
