"""Lower the training steps for a GPU that is not there, and compile their kernels.

    python -m tests.lowered_steps 90

Prints a JSON object: for each step the names of its Triton kernels and the bytes of machine code
that each came to. A process of its own, as PyTorch and Triton are told for good that they are on a
card of that compute capability (90: H100, 80: A100).
"""

import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch._inductor.config
import triton
from torch._dynamo.device_interface import CudaInterface
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime import triton_helpers
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from spg_core import guide_step
from spg_core.adam import Rates
from spg_core.anomaly_map import map_operator
from spg_core.compiling import _own_copy
from spg_core.guide_config import GuideConfig
from spg_core.guide_rates import graph_of, numbers_of
from spg_core.guide_step import GuideFit, GuideTrainer, guide_batch
from spg_core.products import DEFAULT
from spg_core.sae_config import SaeConfig
from spg_core.sae_core import Way, measure, update
from spg_core.sae_weights import SaeWeights
from spg_core.types import PatchGrid
from tests.pretended_gpu import _Asleep

CUDA = torch.device("cuda", 0)
KERNEL = re.compile(r"async_compile\.triton\('(\w+)', '''(.*?)'''", re.DOTALL)


class Lowered(BaseException):
    """The code that inductor made; nothing of it is run."""


def pretend(capability: int) -> None:
    """Tell PyTorch and Triton what card they are on."""
    facts = SimpleNamespace(
        name="a pretended GPU",
        major=capability // 10,
        minor=capability % 10,
        multi_processor_count=132,
        regs_per_multiprocessor=65536,
        max_threads_per_multi_processor=2048,
        max_threads_per_block=1024,
        warp_size=32,
        total_memory=80 * 10**9,
        shared_memory_per_block_optin=163 << 10,
    )
    answers: dict[str, Callable[..., object]] = {
        "get_device_properties": lambda *_: facts,
        "get_compute_capability": lambda *_: capability,
        "get_multi_processor_count": lambda *_: facts.multi_processor_count,
        "is_bf16_supported": lambda *_: True,
        "is_available": lambda: True,
        "is_triton_capable": lambda *_: True,
        "current_device": lambda: 0,
    }
    for name, answer in answers.items():
        setattr(CudaInterface, name, staticmethod(answer))
    for name in ("get_device_properties", "current_device"):
        setattr(CudaInterface.Worker, name, staticmethod(answers[name]))
    untouched: dict[str, Callable[..., object]] = {
        "get_device_properties": answers["get_device_properties"],
        "get_device_capability": lambda *_: divmod(capability, 10),
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_rng_state": lambda *_: torch.empty(0, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
        "is_current_stream_capturing": lambda: False,
        "is_bf16_supported": lambda *_, **__: True,
    }
    for name, answer in untouched.items():
        setattr(torch.cuda, name, answer)
    triton.runtime.driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", capability, 32),
            get_current_device=lambda: 0,
            get_active_torch_device=lambda: CUDA,
        )
    )
    triton_helpers.set_driver_to_gpu = lambda: None
    torch._inductor.config.force_disable_caches = True
    # both would compute on the card
    torch._inductor.config.shape_padding = False
    torch._inductor.config.joint_graph_constant_folding = False


def steps() -> Iterator[tuple[str, Callable[..., object], tuple[Any, ...]]]:
    """Give each compiled function at the default sizes, with arguments that hold no numbers."""
    config = SaeConfig()
    atoms = torch.empty((config.width, 1024), device=CUDA)
    weights = SaeWeights.start(atoms, atoms.clone())
    idle = torch.zeros(config.width, dtype=torch.int64, device=CUDA)
    tokens = torch.empty((12544, 1024), device=CUDA)
    way = Way("dense", torch.bfloat16, DEFAULT)
    yield "sae, measure", measure, (config, way, weights, idle, tokens)
    relu = replace(config, sparsifier="relu", l1=0.02)
    yield "sae, measure, relu", measure, (relu, way, weights, idle, tokens)
    rates = Rates(config.learning_rate, config.beta1, config.beta2).on(CUDA)
    yield "sae, update", update, (config, weights, atoms.clone(), atoms.clone(), rates)
    fit = GuideFit(
        dictionary=torch.empty((config.width, 1024), device=CUDA),
        alive=torch.ones(config.width, dtype=torch.bool, device=CUDA),
        config=GuideConfig(),
    )
    operator = map_operator(PatchGrid(28, 28), 448, 448, sigma=0)
    trainer = GuideTrainer(fit, operator=operator, device=CUDA, compiler="none")
    images = torch.empty((8, 784, 1024), dtype=torch.float16, device=CUDA)
    masks = torch.empty((8, 448, 448), dtype=torch.uint8, device=CUDA)
    batch = guide_batch(trainer.operator, images, masks)
    held = guide_step._Weights(trainer.raw, trainer._dictionary, trainer._alive)
    numbers = numbers_of(fit.config, CUDA)
    arguments = (graph_of(fit.config), False, numbers, held, batch, trainer.operator)
    yield "guides, gradient", guide_step._gradient, arguments
    gradient = torch.empty_like(trainer.raw)
    yield "guides, update", guide_step._update, (numbers, trainer._state, gradient)


def code_of(function: Callable[..., object], arguments: tuple[Any, ...]) -> str:
    """Give the module that inductor makes of a function."""

    def stop(graph: GraphLowering) -> None:
        raise Lowered(graph.codegen()[0].value)

    compiled = torch.compile(_own_copy(function), fullgraph=True, dynamic=False)
    try:
        with mock.patch.object(GraphLowering, "compile_to_module", stop), torch.no_grad():
            compiled(*arguments)
    except Lowered as lowered:
        return str(lowered.args[0])
    raise AssertionError("inductor was not asked")


def machine_code(name: str, source: str, folder: Path, target: GPUTarget) -> int:
    """Compile one kernel by ptxas; give its size in bytes."""
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kernel = getattr(module, name)
    config, meta = kernel.configs[0], kernel.triton_meta
    constants = {**meta.get("constants", {}), **config.kwargs}
    signature = {**meta["signature"], **dict.fromkeys(constants, "constexpr")}
    built = triton.compile(
        ASTSource(kernel.fn, signature, constants, meta["configs"][0]),
        target=target,
        options={"num_warps": config.num_warps, "num_stages": config.num_stages},
    )
    return len(built.asm["cubin"])


def main() -> None:
    """Lower and compile all of it."""
    capability = int(sys.argv[1])
    pretend(capability)
    target = GPUTarget("cuda", capability, 32)
    found: dict[str, dict[str, int]] = {}
    with _Asleep(allow_non_fake_inputs=True):
        sources = {name: code_of(function, given) for name, function, given in steps()}
    with tempfile.TemporaryDirectory() as folder:
        for step, code in sources.items():
            if ".item()" in code:  # inductor does not mind; the host would wait in each step
                sys.exit(f"{step}: asks the GPU for a number")
            build = partial(machine_code, folder=Path(folder), target=target)
            found[step] = {name: build(name, source) for name, source in KERNEL.findall(code)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
