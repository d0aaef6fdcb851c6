"""What the command frees stays with its process; another's process is left as it is."""

import subprocess
import sys

import pytest

from pipeline.machine.freed_memory import keep_freed_memory

# Page faults of the last of several rounds that fill 64 MiB and free them.
ROUNDS = """
import resource, sys
import numpy as np
from pipeline.machine.freed_memory import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 24, np.float32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


# 64 MiB have 32 pages where the system gives large ones, else 16384.
FEW = 24


def faults(how: str) -> int:
    run = subprocess.run([sys.executable, "-c", ROUNDS, how], capture_output=True, text=True)
    if run.returncode == 3:
        pytest.skip("this C library has no mallopt")
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


def test_an_array_freed_is_used_again_without_a_page_fault() -> None:
    assert faults("keep") < FEW


def test_without_it_each_array_is_asked_of_the_system_again() -> None:
    assert faults("leave") > FEW


def test_only_linux_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    assert not keep_freed_memory()
