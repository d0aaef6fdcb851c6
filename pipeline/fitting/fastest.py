"""The fastest of several exact ways to train an SAE on this machine, as first measured.

There are two paths to the gradients and, on the CPU, two libraries for products. They differ in
rounding, and near break-even two measurements may disagree. So the first measurement for a kind of
device, shape and library version is kept (`pipeline.machine.memo`) and asked again by every later
fit; checkpoints hold what a fit began with, and `sae.json` says it.

C atoms of width d.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache as remembered
from time import perf_counter
from typing import TypeVar

import torch
from torch import Tensor

from pipeline.machine.device import device_name
from pipeline.machine.memo import fingerprint, recall, remember
from spg_core.products import DEFAULT, LIBRARIES, Libraries, Library, inner_products
from spg_core.sae import CHUNK_TOKENS, Sae
from spg_core.sae_config import SaeConfig
from spg_core.sae_gradients import PATHS, LossTerms, Path, gradients

# Not fewer: what 512 tokens write stays in the cache. A trial of 512 once chose the dense path for
# d = 192, C = 768, k = 8, where a batch of 12544 took 289 ms by it and 63 by the sparse one.
_TRIAL_TOKENS = 2048
_TRIAL_ROUNDS = 4
# A way that is this much slower after two rounds needs no third.
_CLEAR = 1.5
# Products of fewer numbers than these weights take no time worth a measurement.
_WORTH_MEASURING = 1 << 16

Way = TypeVar("Way", bound=str)


@dataclass(frozen=True)
class Fastest:
    """How an SAE is to be trained."""

    path: Path
    libraries: Libraries


def fastest_way(config: SaeConfig, d_model: int, device: torch.device) -> Fastest:
    """Give the fastest way, from the memo or from a measurement that is then remembered.

    On a GPU always the dense path: its five products at the default size are 0.8 ms of an H100's
    arithmetic, and gathering rows takes longer. Nothing of this was measured.
    """
    if device.type == "cuda":
        return Fastest("dense", DEFAULT)
    libraries = fastest_libraries(config.width, d_model)
    if config.sparsifier == "relu":
        return Fastest("dense", libraries)
    return Fastest(fastest_path(config.width, d_model, config.k, libraries), libraries)


def fastest_libraries(width: int, d_model: int) -> Libraries:
    """Give who multiplies fastest on this CPU at the shapes of an SAE, each layout by itself."""
    if width * d_model < _WORTH_MEASURING:
        return DEFAULT
    text = _kept("sae-products", [width, d_model], lambda: str(time_libraries(width, d_model)))
    return Libraries(*(one for name in text.split("/") for one in LIBRARIES if one == name))


def fastest_path(width: int, d_model: int, k: int, libraries: Libraries) -> Path:
    """Give the faster path on this CPU, with these libraries."""
    shape = [width, d_model, k, str(libraries)]
    text = _kept("sae-paths", shape, lambda: time_paths(width, d_model, k, libraries))
    return next(path for path in PATHS if path == text)


def _kept(kind: str, shape: Sequence[object], measure: Callable[[], str]) -> str:
    name = fingerprint(
        {
            "device": device_name(torch.device("cpu")),
            "shape": shape,
            "trial": _TRIAL_TOKENS,
            "threads": torch.get_num_threads(),
        }
    )
    known = (recall(kind, name) or b"").decode(errors="replace")
    if _is_answer(known):
        return known
    measured = measure()
    remember(kind, name, measured.encode())
    return measured


def _is_answer(text: str) -> bool:
    """Tell what is remembered from what somebody else left there."""
    return text in PATHS or (text.count("/") == 2 and {*text.split("/")} <= {*LIBRARIES})


@remembered  # for those who have no folder to remember it in
def time_libraries(width: int, d_model: int) -> Libraries:
    """Time both libraries on the three products of a training step, chunks of random tokens."""
    tokens, latents = torch.randn(CHUNK_TOKENS, d_model), torch.randn(CHUNK_TOKENS, width)
    atoms = torch.randn(width, d_model)
    layouts = {
        "rows": (tokens, atoms),
        "right_columns": (latents, atoms.T),
        "columns": (latents.T, tokens.T),
    }
    found: dict[str, Library] = {}
    for layout, (left, right) in layouts.items():
        ways: dict[Library, Callable[[], object]] = {
            one: _product(left, right, Libraries(one, one, one)) for one in LIBRARIES
        }
        found[layout] = _faster(ways)
    return Libraries(**found)


def _product(left: Tensor, right: Tensor, by: Libraries) -> Callable[[], object]:
    return lambda: inner_products(left, right, by=by)


@remembered
def time_paths(width: int, d_model: int, k: int, libraries: Libraries) -> Path:
    """Time both paths on one batch of random tokens, and give the faster."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn((width, d_model), generator=generator)
    tokens = torch.randn((_TRIAL_TOKENS, d_model), generator=generator)
    sae = Sae(weights, weights / d_model**0.5, k, libraries=libraries)
    terms = LossTerms(scale=1.0, l1=0.0, threshold=0.0)

    def step(path: Path) -> Callable[[], object]:
        return lambda: gradients(path, sae, tokens, terms)

    return _faster({path: step(path) for path in PATHS})


def _faster(ways: Mapping[Way, Callable[[], object]]) -> Way:
    seconds = dict.fromkeys(ways, math.inf)
    for trial in range(_TRIAL_ROUNDS):
        # in turns, so that a busy moment of the machine hits all
        for name, run in ways.items():
            start = perf_counter()
            run()
            seconds[name] = min(seconds[name], perf_counter() - start)
        if trial > 0 and max(seconds.values()) > _CLEAR * min(seconds.values()):
            break
    return min(seconds, key=seconds.__getitem__)
