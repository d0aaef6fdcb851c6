"""Dask workers give the bits of one process, also when one of them is killed on the way."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import distributed
import numpy as np
import pytest
import torch
import zarr
from dask import config as dask_settings

from cache.find import find_caches
from cache.objects import is_temporary
from cache.store import open_store
from pipeline.configs import ClusterConfig, ScoreConfig
from pipeline.detection.load import load_detector
from pipeline.detection.values import compute_maps
from pipeline.extraction import fill
from pipeline.extraction.extract import extract
from pipeline.inputs import open_dataset
from pipeline.machine import device
from pipeline.scoring import blocks as score_blocks
from pipeline.scoring.blocks import MapPlan, open_scoring
from pipeline.scoring.categories import finish_category, submit_category, submit_inputs
from pipeline.scoring.score import score
from pipeline.workers import client as cluster_client
from pipeline.workers import cluster as cluster_module
from pipeline.workers import ticket as cluster_store
from pipeline.workers.open import open_workers
from pipeline.workers.work import Here, Threads
from pipeline.workers.worker import gpus_seen, place_of
from spg_core.errors import ClusterError, ConfigError, DatasetError, MetricError
from spg_core.pixel_metrics import pixel_metrics
from spg_core.pooling import Pooling
from tests.cache_samples import folder_digests
from tests.tiny_images import config_of, write_images


@pytest.fixture(scope="module")
def dask():
    """A scheduler with two worker processes, as a team's would be."""
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as local,
        distributed.Client(local) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def there(dask):
    return ClusterConfig(scheduler=dask.scheduler.address)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """150 images: two whole shards and a short one."""
    root = tmp_path_factory.mktemp("images")
    write_images(root, n_good=100, n_bad=50, side=24)
    return root


@pytest.fixture(scope="module")
def one_process(images, tmp_path_factory):
    store = open_store(tmp_path_factory.mktemp("one"))
    return store, extract(store, config_of(images))


def digests(store):
    """Of what is published; a killed process may leave a temporary, which `cache gc` sweeps."""
    found = folder_digests(Path(store.where) / "tokens")
    return {name: digest for name, digest in found.items() if not is_temporary(name)}


def double(opened, value):
    return opened * value


def add(opened, values):
    return opened + sum(values)


def fail(opened):
    raise MetricError(f"this happened where {opened} is open")


def give(store, job):
    return job


def same(opened):
    return opened


def refuse(store, job):
    raise DatasetError(f"no {job} here")


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory):
    """A store for jobs that need none."""
    return open_store(tmp_path_factory.mktemp("nowhere"))


@contextmanager
def kill_one_worker(client, when):
    """SIGKILL a worker process as soon as `when()` holds, while the block runs."""
    victim = min(client.run(os.getpid).values())
    killed = threading.Event()

    def watch():
        while not when():
            time.sleep(0.005)
        os.kill(victim, signal.SIGKILL)
        killed.set()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield killed
    watcher.join(10)


def test_functions_run_here_and_there_alike(there, nowhere):
    def use(workers):
        handles = [workers.submit(double, value) for value in (1, 2, 3)]
        total = workers.submit(add, handles)
        return sorted(workers.results(handles)), workers.gather([total, *handles])

    with open_workers(nowhere, there, give, 10) as workers:
        asked = workers.ask_all(lambda opened: opened)
        found = use(workers)

    assert found == use(Here(10)) == ([10, 20, 30], [70, 10, 20, 30])
    with closing(Threads(10, 2)) as threads:
        assert sorted(threads.results(threads.submit(double, n) for n in (1, 2, 3))) == [10, 20, 30]
        assert threads.gather([threads.submit(double, 4)]) == [40]
    assert sorted(asked.values()) == [10, 10]


def test_an_error_of_a_worker_arrives_as_it_was_raised(there, nowhere):
    with (
        open_workers(nowhere, there, give, "a job") as workers,
        pytest.raises(MetricError, match="this happened where a job is open"),
    ):
        workers.gather([workers.submit(fail)])


def test_all_workers_that_cannot_do_a_job_are_named_at_once(there, nowhere):
    with (
        open_workers(nowhere, there, refuse, "images") as workers,
        pytest.raises(ClusterError, match=r"2 of 2 workers cannot .*nothing was started") as told,
    ):
        workers.ask_all(same)

    assert str(told.value).count("no images here") == 2
    assert all(address in str(told.value) for address in workers.addresses)


def test_extraction_by_workers_gives_the_bits_of_one_process(there, images, one_process, tmp_path):
    store = open_store(tmp_path)

    done = extract(store, replace(config_of(images), decoders=2), there)

    assert replace(done.caches[0], path="") == replace(one_process[1].caches[0], path="")
    assert digests(store) == digests(one_process[0])
    assert list(store.temporaries("")) == []


def test_a_killed_workers_shards_are_done_by_others(dask, there, images, one_process, tmp_path):
    store = open_store(tmp_path)

    with kill_one_worker(dask, lambda: list(tmp_path.rglob("tokens/c/*/*/*"))) as killed:
        extract(store, config_of(images), there)

    assert killed.is_set()
    assert digests(store) == digests(one_process[0])


def test_workers_resume_what_one_process_began(there, images, one_process, tmp_path):
    store = open_store(tmp_path)
    source = Path(one_process[0].where)
    for path in source.rglob("tokens.zarr/**/*"):
        if path.is_file() and "/c/2" not in path.as_posix():
            copied = tmp_path / path.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())

    extract(store, config_of(images), there)

    assert digests(store) == digests(one_process[0])


@pytest.mark.slow
def test_local_workers_are_started_and_give_the_same(images, one_process, tmp_path):
    store = open_store(tmp_path)

    extract(store, config_of(images), ClusterConfig(workers=2))

    assert digests(store) == digests(one_process[0])


@pytest.mark.slow
def test_ctrl_c_ends_clean_with_local_workers_and_keeps_shards(tmp_path_factory, tmp_path):
    # nine shards of a second each: the signal cannot come after the last one
    many = tmp_path_factory.mktemp("many")
    write_images(many, n_good=500, n_bad=50, side=24)
    options = ["--backbone", "gabor", "--dataset", "mvtec", "--root", str(many)]
    options += ["--image-size", "224", "--workers", "2", "--store", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "extract", *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a job in the background, as some CI is, inherits Ctrl-C as ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not list(tmp_path.rglob("receipts/*.json")):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)  # a terminal tells every process of the group
    _, messages = process.communicate()

    assert process.returncode == 130, messages
    assert messages.strip().endswith("is kept, the same command goes on from there")
    assert "Traceback" not in messages
    store = open_store(tmp_path)
    assert [info.state for info in find_caches(store)] == ["partial"]
    assert list(tmp_path.glob(".tmp-*")) == []  # no probe is left


def test_workers_without_the_image_folder_stop_it_before_work_starts(
    there, images, tmp_path, monkeypatch
):
    elsewhere = tmp_path / "not-mounted"
    real = fill._for_workers
    monkeypatch.setattr(fill, "_for_workers", lambda c: replace(real(c), root=str(elsewhere)))
    store = open_store(tmp_path / "store")

    with pytest.raises(
        ClusterError, match="not-mounted: no such folder here; every worker"
    ) as told:
        extract(store, config_of(images), there)

    assert "nothing was started" in str(told.value)
    assert find_caches(store) == []


def test_workers_that_see_another_store_stop_it_before_work_starts(
    there, images, tmp_path, monkeypatch
):
    monkeypatch.setattr(cluster_store, "_url", lambda store: str(tmp_path / "another"))

    with pytest.raises(ClusterError, match="another is not the same store here; use a folder"):
        extract(open_store(tmp_path / "store"), config_of(images), there)

    assert not (tmp_path / "another").exists()


def test_other_images_under_the_same_names_are_refused(there, images, tmp_path, monkeypatch):
    elsewhere = tmp_path / "other"
    write_images(elsewhere, n_good=100, n_bad=50, side=30)
    real = fill._for_workers
    monkeypatch.setattr(fill, "_for_workers", lambda c: replace(real(c), root=str(elsewhere)))

    with pytest.raises(ClusterError, match=r"good/000\.png is another image here than where"):
        extract(open_store(tmp_path / "store"), config_of(images), there)


def test_scores_by_workers_have_the_bits_of_one_process(there, small_store, tmp_path, monkeypatch):
    monkeypatch.setattr(score_blocks, "BLOCK_IMAGES", 3)  # several blocks a category
    results = []
    for name, where in (("here", ClusterConfig()), ("there", there)):
        url = tmp_path / name
        url.mkdir()
        for part in ("tokens", "guides", "saes"):
            (url / part).symlink_to(Path(small_store.url) / part)
        made = score(
            open_store(url),
            small_store.guides.id,
            "target",
            ScoreConfig(tau=0.1),
            save_maps=True,
            cluster=where,
        )
        document = replace(made.document, created="")
        maps = zarr.open_array(f"{made.path}/maps.zarr", mode="r")[:]
        results.append((document, maps, (Path(made.path) / "images.parquet").read_bytes()))

    (here, here_maps, here_images), (by_workers, maps, images_table) = results
    assert by_workers == here
    np.testing.assert_array_equal(maps, here_maps)
    assert images_table == here_images


def test_blocks_change_no_bit_of_scores_and_pixel_metrics(small_store, monkeypatch):
    store = open_store(small_store.url)
    data = open_dataset(store, "target", "gabor")
    plan = MapPlan(load_detector(store, small_store.guides.id), (Pooling(),))
    here = Here(open_scoring(store, data, [plan], "cpu"))
    rows = data.manifest.rows_of(data.manifest.categories[0])
    maps = compute_maps(plan.detector, data, rows)

    found = []
    for n_images in (1, 3, 64):
        monkeypatch.setattr(score_blocks, "BLOCK_IMAGES", n_images)
        pending = submit_category(here, submit_inputs(here, data, "x", rows), 0)
        found += finish_category(here, data, plan, [ScoreConfig()], pending)

    whole = pixel_metrics(maps, data.cache.masks(rows))
    assert [one.pixel for one in found] == [whole, whole, whole]
    for one in found:
        np.testing.assert_array_equal(one.scores, maps.max((1, 2)))


def test_a_scheduler_that_does_not_answer_is_named(nowhere, monkeypatch):
    monkeypatch.setattr(cluster_client, "_CONNECT_SECONDS", 0.5)

    with (
        pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 "),
        open_workers(nowhere, ClusterConfig(scheduler="tcp://127.0.0.1:9"), give, 1),
    ):
        pass


def test_a_scheduler_without_workers_is_told(nowhere, monkeypatch):
    monkeypatch.setattr(cluster_client, "_WORKERS_SECONDS", 0.5)

    with (
        distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty,
        pytest.raises(ClusterError, match="has no workers; start some with `dask worker tcp:"),
        open_workers(nowhere, ClusterConfig(scheduler=empty.scheduler_address), give, 1),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"workers": -1}, "--workers is -1"),
        ({"workers": 2, "scheduler": "tcp://x:1"}, "give a number of processes to start here, or"),
    ],
)
def test_impossible_clusters_are_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        ClusterConfig(**options)


# --- nobody waits for the dead --------------------------------------------------------------------


def die(store, job):
    """What the kernel does to a process that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def end_worker(opened):
    os._exit(1)


def test_a_worker_that_dies_as_it_opens_a_job_is_told(nowhere, monkeypatch):
    monkeypatch.setattr(cluster_module, "_LOOK_SECONDS", 0.2)

    with (
        open_workers(nowhere, ClusterConfig(workers=1), die, 1) as workers,
        pytest.raises(ClusterError, match=r"worker tcp:\S+ died .*too little memory"),
    ):
        workers.ask_all(same)


@pytest.mark.parametrize("wait", ["gather", "results"])
def test_work_that_no_worker_is_left_to_do_is_told(nowhere, monkeypatch, wait):
    monkeypatch.setattr(cluster_module, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(cluster_module, "_ALONE_SECONDS", 0.3)
    code = "import sys; from distributed.cli.dask_worker import main; main()"
    with distributed.LocalCluster(
        n_workers=0, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
    ) as local:
        worker = subprocess.Popen(
            [sys.executable, "-c", code, local.scheduler_address, "--no-nanny", "--no-dashboard"],
            stderr=subprocess.DEVNULL,
        )
        with open_workers(
            nowhere, ClusterConfig(scheduler=local.scheduler_address), give, 1
        ) as workers:
            handles = [workers.submit(end_worker)]

            with pytest.raises(ClusterError, match=r"has had no worker for 0 s; what was written"):
                list(getattr(workers, wait)(handles))
        worker.wait()


def test_workers_that_die_at_their_start_are_told(nowhere):
    with (
        dask_settings.set({"distributed.worker.preload": ["import os; os._exit(9)"]}),
        pytest.raises(ClusterError, match="2 workers could not be started on this machine"),
        open_workers(nowhere, ClusterConfig(workers=2), give, 1),
    ):
        pass


# --- which GPU ------------------------------------------------------------------------------------


def place_here(opened):
    return device.place


def test_each_worker_of_a_machine_has_a_number_of_its_own(there, nowhere):
    with open_workers(nowhere, there, give, 1) as workers:
        places = workers.ask_all(place_here)

    assert {*places.values()} == {device.Place(0, 2), device.Place(1, 2)}


@pytest.mark.parametrize(
    ("name", "address", "expected"),
    [("3", "a", (3, 2)), ("gpu-2", "new", (2, 3)), ("tcp://a", "a", (1, 2)), ("x", "new", (0, 3))],
)
def test_a_worker_is_numbered_by_its_name_or_as_counted(name, address, expected):
    places = {"a": device.Place(1, 2), "b": device.Place(0, 3)}

    assert place_of(name, address, places) == device.Place(*expected)


def test_workers_are_counted_machine_by_machine():
    known = {f"tcp://{host}:{port}": {"host": host} for host in "ab" for port in (1, 2, 3)}

    places = [*cluster_module._places(known, {}).values()]

    assert places == [device.Place(number, 3) for number in (0, 1, 2, 0, 1, 2)]


def test_workers_that_were_given_other_gpus_share_none():
    known = {f"tcp://a:{port}": {"host": "a"} for port in (1, 2, 3)}
    seen = {"tcp://a:1": "17 0", "tcp://a:2": "18 0", "tcp://a:3": "17 0"}

    places = cluster_module._places(known, seen)

    assert [*places.values()] == [device.Place(0, 2), device.Place(0, 1), device.Place(1, 2)]


def test_a_worker_says_which_gpus_it_was_given(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")

    assert gpus_seen() == "17 2,3"


@pytest.mark.parametrize("n_gpus", [1, 2, 4])
def test_auto_is_a_gpu_of_ones_own_in_a_worker_alone(monkeypatch, n_gpus):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)

    assert device.resolve_device("auto") == torch.device("cuda")
    found = []
    for place in range(4):
        monkeypatch.setattr(device, "place", device.Place(place, 4))
        found.append(device.resolve_device("auto").index or 0)
        assert device.resolve_device("cuda") == device.resolve_device("auto")
    assert found == [place % n_gpus for place in range(4)]
    assert device.resolve_device("cuda:0") == torch.device("cuda:0")


def test_dask_cuda_has_chosen_the_gpu_already(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(device, "place", device.Place(1, 2))
    # its workers import it as they start, and see their own GPU first: CUDA_VISIBLE_DEVICES=1,0
    monkeypatch.setitem(sys.modules, "dask_cuda", object())

    assert device.resolve_device("auto") == torch.device("cuda")
