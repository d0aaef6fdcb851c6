import json

import pytest
import torch

from cache.store import open_store
from pipeline.drawing.plots import draw_training
from pipeline.fitting.training import (
    Checkpoint,
    TrainingLog,
    drop_checkpoint,
    load_checkpoint,
    read_log,
    save_checkpoint,
)
from spg_core.errors import CorruptStore


def test_a_line_is_on_disk_as_soon_as_it_is_added(tmp_path):
    log = TrainingLog(open_store(tmp_path), "saes/x")

    log.add({"step": 1, "loss": 0.5})

    lines = (tmp_path / "saes" / "x" / "training.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": 0.5}]
    log.close()


def test_going_on_keeps_the_lines_up_to_the_checkpoint_and_no_more(tmp_path):
    store = open_store(tmp_path)
    first = TrainingLog(store, "saes/x")
    for step in (1, 2, 3):
        first.add({"step": step})
    first.close()

    second = TrainingLog(store, "saes/x", keep=2)
    second.add({"step": 3, "again": True})
    second.close()

    assert read_log(store, "saes/x") == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_a_torn_last_line_is_left_out(tmp_path):
    store = open_store(tmp_path)
    log = TrainingLog(store, "saes/x")
    log.add({"step": 1})
    log.close()
    path = tmp_path / "saes" / "x" / "training.jsonl"
    path.write_text(path.read_text() + '{"step": 2, "lo')

    assert read_log(store, "saes/x") == [{"step": 1}]


def test_a_checkpoint_comes_back_bit_for_bit_and_the_next_replaces_it(tmp_path):
    store = open_store(tmp_path)
    tensors = {"w": torch.randn(3, 4), "n": torch.tensor(7)}
    save_checkpoint(store, "saes/x", Checkpoint(5, tensors))
    save_checkpoint(store, "saes/x", Checkpoint(9, tensors))

    found = load_checkpoint(store, "saes/x")

    assert found is not None
    assert found.step == 9
    assert set(found.tensors) == {"w", "n"}
    assert torch.equal(found.tensors["w"], tensors["w"])
    drop_checkpoint(store, "saes/x")
    assert load_checkpoint(store, "saes/x") is None


def test_a_torn_checkpoint_is_refused_with_the_remedy(tmp_path):
    store = open_store(tmp_path)
    save_checkpoint(store, "saes/x", Checkpoint(5, {"w": torch.ones(2)}))
    path = tmp_path / "saes" / "x" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:20])

    with pytest.raises(CorruptStore, match="delete it to start this fit anew"):
        load_checkpoint(store, "saes/x")


def test_curves_are_drawn_as_a_png():
    lines = [{"step": step, "loss": 1 / step} for step in range(1, 20)]

    data = draw_training(lines, {"loss": ["loss"], "FVU": ["fvu"]}, "a fit")

    assert data.startswith(b"\x89PNG")
