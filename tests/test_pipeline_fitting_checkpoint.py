import json

import pytest
import safetensors.torch
import torch

from cache.store import open_store
from pipeline.artifacts.bodies import carried_document, encode_tensors
from pipeline.drawing.plots import draw_training
from pipeline.fitting import train
from pipeline.fitting.checkpoint import drop_checkpoint, load_checkpoint, save_checkpoint
from pipeline.fitting.log import TrainingLog, read_log
from pipeline.fitting.member import Member
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


FOREIGN = [
    "[]",
    "7",
    '{"loss": 1}',
    '{"step": "2"}',
    "\xff",
    "[" * 100_000,
    '{"step": 2, "loss": "0.5"}',
    '{"step": 2, "loss": null}',
    '{"step": 2, "loss": [1]}',
    '{"step": 2, "loss": 1e308}',
    '{"step": 1' + "0" * 400 + "}",
]


@pytest.mark.parametrize("foreign", FOREIGN, ids=range(len(FOREIGN)))
def test_a_line_that_is_none_of_ours_ends_a_log(tmp_path, foreign):
    store = open_store(tmp_path)
    log = TrainingLog(store, "saes/x")
    log.add({"step": 1})
    log.close()
    path = tmp_path / "saes" / "x" / "training.jsonl"
    path.write_text(path.read_text() + foreign + '\n{"step": 3}\n', encoding="latin-1")

    assert read_log(store, "saes/x") == [{"step": 1}]


STATE = {"w": torch.randn(3, 4), "b": torch.tensor([True, False]), "n_steps": torch.tensor(7)}


def test_a_checkpoint_comes_back_bit_for_bit_and_the_next_replaces_it(tmp_path):
    store = open_store(tmp_path)
    save_checkpoint(store, "saes/x", STATE | {"n_steps": torch.tensor(5)})
    save_checkpoint(store, "saes/x", STATE)

    found = load_checkpoint(store, "saes/x", like=STATE)

    assert found is not None
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())
    drop_checkpoint(store, "saes/x")
    assert load_checkpoint(store, "saes/x", like=STATE) is None


DAMAGES = {
    "torn": lambda data: data[:20],
    "empty": lambda data: b"",
    "a byte short": lambda data: data[:-1],
    "a bit flipped": lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
    "a picture": lambda data: b"\x89PNG" + data[4:],
    "padded": lambda data: data + bytes(1 << 21),
    "without its checksum": lambda data: safetensors.torch.save(STATE),
    "with null for metadata": lambda data: _safetensors({"__metadata__": None}, b""),
    "of a type that torch lacks": lambda data: _safetensors(
        {"w": {"dtype": "F6_E3M2", "shape": [32], "data_offsets": [0, 24]}}, bytes(24)
    ),
}


@pytest.mark.parametrize("field", ["format", "kind", "steps", "blake3"])
@pytest.mark.parametrize("wrong", [None, True, -1, 6, 2**64, 0.5, "", "x" * 64, "0" * 64, [], {}])
def test_a_field_of_a_checkpoint_that_is_another_is_told_by_name(tmp_path, field, wrong):
    store = open_store(tmp_path)
    save_checkpoint(store, "saes/x", STATE)
    path = tmp_path / "saes" / "x" / "checkpoint.safetensors"
    document = json.loads(carried_document(path.read_bytes(), "it"))
    without = {name: value for name, value in document.items() if name != field}

    for forged in (document | {field: wrong}, without):
        path.write_bytes(encode_tensors(STATE, json.dumps(forged)))
        with pytest.raises(CorruptStore, match=r"saes/x/checkpoint\.safetensors is damaged \("):
            load_checkpoint(store, "saes/x", like=STATE)


def _safetensors(header, tensors):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_told_by_name(tmp_path, damage):
    store = open_store(tmp_path)
    save_checkpoint(store, "saes/x", STATE)
    path = tmp_path / "saes" / "x" / "checkpoint.safetensors"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))

    with pytest.raises(CorruptStore, match=r"saes/x/checkpoint\.safetensors is damaged \("):
        load_checkpoint(store, "saes/x", like=STATE)


class Counter:
    """A trainer that only counts."""

    remark = None
    done = 0

    def state(self):
        return {"n_steps": torch.tensor(self.done)}

    def load_state(self, state):
        self.done = int(state["n_steps"])


def test_one_slow_checkpoint_makes_the_next_pause_longer_and_no_other(tmp_path, monkeypatch):
    clock, saved = [0.0], []
    store, trainer = open_store(tmp_path), Counter()
    member = Member("x", "saes/x", trainer, TrainingLog(store, "saes/x"))

    def save(store, folder, state):
        clock[0] += 0.1 if saved else 600.0
        saved.append(int(state["n_steps"]))

    def step(member, batch, number):
        clock[0] += 10.0
        member.trainer.done = number
        return {"step": number}

    monkeypatch.setattr(train, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(train, "save_checkpoint", save)

    train.run(store, [member], lambda first: iter(range(1300)), step, 1300, lambda *_, **__: None)

    first, second, third, *_ = saved
    assert first == 7  # a minute of steps of ten seconds
    assert second - first == 600 / 0.05 / 10 + 1
    assert third - second == 7


def test_curves_are_drawn_as_a_png():
    lines = [{"step": step, "loss": 1 / step} for step in range(1, 20)]

    data = draw_training(lines, {"loss": ["loss"], "FVU": ["fvu"]}, "a fit")

    assert data.startswith(b"\x89PNG")
