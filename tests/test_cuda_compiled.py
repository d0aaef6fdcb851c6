"""Inductor lowers the training steps for cards that are not there, and their kernels compile."""

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.pretended_gpu import needs_cuda_build


@pytest.mark.slow
@needs_cuda_build
@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed with this PyTorch"
)
@pytest.mark.parametrize("capability", [80, 90])
def test_the_steps_are_lowered_and_their_kernels_compile(capability: int) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.lowered_steps", str(capability)]

    ran = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr[-3000:]
    kernels = json.loads(ran.stdout.splitlines()[-1])
    assert kernels.keys() == {
        *("sae, measure", "sae, measure, relu", "sae, update"),
        *("guides, gradient", "guides, update"),
    }
    assert all(kernels.values())
    assert all(size > 0 for step in kernels.values() for size in step.values())
