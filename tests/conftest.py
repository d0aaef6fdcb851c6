"""Shared fixtures: the real samples, and hypothesis without deadlines (the machines are noisy)."""

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read as torch is imported, see docs/log.md

import pytest
import torch
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.small_store", "tests.chromium", "tests.report_page"]

settings.register_profile(
    "spg", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("spg")
torch.set_num_threads(2)

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(autouse=True, scope="session")
def own_memos(tmp_path_factory) -> None:
    """Keep what extractions remember out of the user's own folder, and out of other runs."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real samples beside the checkout, or a skip that says what is missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real samples (../shared/data) are not beside this checkout")
    return SHARED
