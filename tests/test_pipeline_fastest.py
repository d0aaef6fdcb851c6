"""The fastest way to train is measured once, remembered, and kept by a fit that goes on."""

from dataclasses import replace

import pytest
import torch

from pipeline.fitting import fastest
from pipeline.fitting.fastest import Fastest, fastest_way
from pipeline.machine.device import device_name
from pipeline.machine.memo import memo_folder
from spg_core import products
from spg_core.products import DEFAULT, Libraries, Library
from spg_core.sae_config import SaeConfig
from spg_core.sae_step import SaeTrainer

CPU = torch.device("cpu")
TOPK = SaeConfig(width=48, k=5)
OTHERS = Libraries("torch", "onednn", "torch")


@pytest.fixture(autouse=True)
def own_memo(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember nothing from other tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("memo")))
    monkeypatch.setattr(fastest, "_WORTH_MEASURING", 0)
    fastest.time_libraries.cache_clear()
    fastest.time_paths.cache_clear()


def test_small_products_are_not_measured(slow: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    slow |= {"onednn"}
    monkeypatch.setattr(fastest, "_WORTH_MEASURING", 48 * 18 + 1)

    assert fastest_way(TOPK, 18, CPU).libraries == DEFAULT


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Let some ways take a second of a clock that only they move."""
    chosen: set[str] = set()
    now = [0.0]
    monkeypatch.setattr(fastest, "perf_counter", lambda: now[0])
    real = fastest._faster

    def timed(ways):
        def run(name):
            ways[name]()
            now[0] += 1.0 if name in chosen else 0.1

        return real({name: lambda name=name: run(name) for name in ways})

    monkeypatch.setattr(fastest, "_faster", timed)
    return chosen


@pytest.mark.parametrize("library", ["onednn", "torch"])
@pytest.mark.parametrize("path", ["dense", "sparse"])
def test_the_faster_path_and_libraries_are_taken(
    slow: set[str], library: Library, path: str
) -> None:
    slow |= {"onednn", "torch", "dense", "sparse"} - {library, path}

    assert fastest_way(TOPK, 20, CPU) == Fastest(path, Libraries(library, library, library))  # type: ignore[arg-type]


def test_relu_takes_the_dense_path(slow: set[str]) -> None:
    slow |= {"dense", "onednn"}
    relu = replace(TOPK, sparsifier="relu")

    assert fastest_way(relu, 20, CPU) == Fastest("dense", Libraries("torch", "torch", "torch"))


def test_what_was_measured_first_is_taken_from_then_on(slow: set[str]) -> None:
    slow |= {"dense", "onednn"}
    first = fastest_way(TOPK, 17, CPU)
    slow ^= {"dense", "sparse", "onednn", "torch"}

    again = fastest_way(TOPK, 17, CPU)
    another_k = fastest_way(replace(TOPK, k=4), 17, CPU)
    another_width = fastest_way(replace(TOPK, width=40), 17, CPU)

    assert again == first
    assert (another_k.path, another_k.libraries) == ("dense", first.libraries)
    assert another_width.libraries == DEFAULT


@pytest.mark.parametrize("left", [b"", b"both", b"mkl/mkl/mkl", b"\xff", b"onednn/torch"])
def test_what_somebody_else_left_in_the_memo_is_measured_anew(slow: set[str], left: bytes) -> None:
    slow |= {"dense", "onednn"}
    first = fastest_way(TOPK, 18, CPU)
    fastest.time_libraries.cache_clear()
    fastest.time_paths.cache_clear()
    folder = memo_folder()
    assert folder is not None
    for path in [one for one in folder.rglob("sae-*/*") if one.is_file()]:
        path.write_bytes(left)

    assert fastest_way(TOPK, 18, CPU) == first


@pytest.mark.skipif(not products.HAS_ONEDNN, reason="this PyTorch has no oneDNN")
def test_a_fit_that_goes_on_keeps_the_libraries_it_began_with() -> None:
    tokens = torch.randn(64, 20)
    begun = SaeTrainer(TOPK, 20, libraries=OTHERS)
    begun.step(tokens)
    state = begun.state()
    begun.step(tokens)

    resumed = SaeTrainer(TOPK, 20, libraries=DEFAULT)
    resumed.load_state(state)
    resumed.step(tokens)

    assert resumed.way.libraries == OTHERS
    assert all(torch.equal(resumed.state()[name], one) for name, one in begun.state().items())


def test_a_cpu_is_named_by_its_model() -> None:
    model, _, instructions = device_name(CPU).rpartition(", ")

    assert model
    assert instructions == torch.backends.cpu.get_cpu_capability()
