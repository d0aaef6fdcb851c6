"""S3 that fails: what is written in the end is what was meant, or an error says that it is not."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from cache.find import find_caches
from cache.reader import open_cache
from cache.share import copy_cache
from cache.store import open_store
from cache.verify import verify_cache
from spg_core.errors import StoreError
from tests.cache_samples import make_sample, write_cache
from tests.crashing_writer import start, write_all
from tests.faulty_proxy import Fault, faulty_proxy
from tests.s3_server import s3_url  # noqa: F401 - the fixture

SAMPLE = make_sample()


@pytest.mark.parametrize("fault", ["refuse", "lose", "500", "503", "cut", "slow"])
def test_every_seventh_request_fails_and_the_cache_is_sound(
    s3_url: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    spoilt: list[str] = []

    def choose(number: int, method: str, _: str) -> Fault:
        # Cutting the answer to a HEAD or a PUT, which has no body, would cut nothing.
        if number % 7 != 3 or (fault == "cut" and method != "GET"):
            return None
        spoilt.append(method)
        return fault

    endpoint = os.environ["AWS_ENDPOINT_URL"]
    with faulty_proxy(endpoint, choose) as url, monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", url)
        through = open_store(s3_url)
        folder = write_cache(through, SAMPLE).folder
        cache = open_cache(through, "visa", "gabor", mirror_folder=tmp_path / "mirror")

        np.testing.assert_array_equal(cache.tokens(slice(None)), SAMPLE.tokens)
        assert copy_cache(through, open_store(tmp_path / "copy"), folder).copied_shards == 3

    assert set(spoilt) >= ({"GET"} if fault == "cut" else {"GET", "PUT"})
    assert verify_cache(open_store(s3_url), folder).is_sound
    assert verify_cache(open_store(tmp_path / "copy"), folder).is_sound


def test_a_server_that_never_answers_is_an_error_and_the_next_run_resumes(
    s3_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def choose(number: int, method: str, path: str) -> Fault:
        return "500" if "tokens/c/1" in path and method == "PUT" else None

    endpoint = os.environ["AWS_ENDPOINT_URL"]
    with faulty_proxy(endpoint, choose) as url, monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(StoreError, match=r"cannot write s3://.*/tokens/c/1/0/0: .*500"):
            write_cache(open_store(s3_url), SAMPLE)
    assert [info.state for info in find_caches(open_store(s3_url))] == ["partial"]

    folder = write_cache(open_store(s3_url), SAMPLE).folder

    assert verify_cache(open_store(s3_url), folder).is_sound


def test_pairs_of_killed_writers_leave_a_cache_that_the_next_one_finishes(
    s3_url: str,  # noqa: F811
) -> None:
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    kills = 0
    # An undisturbed writer makes 21 PUTs; each pair finds a little more done.
    for first, second in [(3, 6), (8, 7), (9, 11), (10, 8), (9, 12)]:
        workers = [start(write_all, s3_url, 0, at, environment) for at in (first, second)]
        for worker in workers:
            worker.join(60)
            kills += worker.exitcode == -signal.SIGKILL

    folder = write_cache(open_store(s3_url), SAMPLE).folder

    assert kills >= 6
    assert verify_cache(open_store(s3_url), folder).is_sound
    assert not list(open_store(s3_url).walk(f"{folder}/receipts"))
