"""docs/format.md is normative: its reader and its claims are run here."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cache.find import read_record
from cache.store import open_store
from tests.cache_samples import (
    COVERS,
    Sample,
    flip_byte,
    make_sample,
    new_writer,
    write_pending,
)

DOCUMENT = (Path(__file__).parents[1] / "docs" / "format.md").read_text(encoding="utf-8")


def reader() -> Any:
    """The function `read_cache` of the page."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/format.md", "exec"), names)
    return names["read_cache"]


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Sample]:
    sample = make_sample()
    table = pa.table({"image_id": [f"{row:064x}" for row in range(150)], "row": range(150)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    writer = new_writer(open_store(tmp_path), sample)
    write_pending(writer, sample)
    writer.finish(buffer.getvalue())
    return tmp_path / writer.folder, sample


def test_the_reader_of_the_page_reads_what_is_written(written: tuple[Path, Sample]) -> None:
    folder, sample = written

    record, manifest, group = reader()(folder)

    assert record["covers"] == COVERS
    assert manifest["row"].to_pylist() == list(range(150))
    for array in ("tokens", "cls", "masks"):
        np.testing.assert_array_equal(group[array][:], getattr(sample, array))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cache.json", "edited or torn|Expecting"),
        ("manifest.parquet", "manifest.parquet is not what was written"),
        ("tokens.zarr/masks/c/1/0/0", "shard 1 of masks is not what was written"),
    ],
)
def test_the_reader_of_the_page_refuses_a_flipped_bit(
    written: tuple[Path, Sample], name: str, message: str
) -> None:
    flip_byte(written[0] / name, 40)

    with pytest.raises(ValueError, match=message):
        reader()(written[0])


def test_the_reader_of_the_page_is_about_thirty_lines() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)

    assert len([line for line in code.splitlines() if line.strip()]) <= 34


def test_the_page_lists_every_field_of_the_record(written: tuple[Path, Sample]) -> None:
    record, _, _ = reader()(written[0])

    stated = set(re.findall(r"`([a-z0-9_]+)`", DOCUMENT.split("### `cache.json`")[1]))

    assert {*record, *record["shards"][0]["objects"]["tokens"], "digest"} <= stated


def test_the_bytes_of_the_smallest_cache_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    # Key and checksums were worked out from the page alone, with a bitwise CRC-32C.
    sample = make_sample(n_images=1, patches=1, dim=2, extras=False)
    sample.tokens[:] = [[[1.0, -2.0]]]
    writer = new_writer(open_store(tmp_path), sample, {"format": 1})
    write_pending(writer, sample)
    writer.finish(b"m")

    assert writer.folder == "tokens/visa/gabor/3f0a99256beeb89a"
    shard = (tmp_path / writer.folder / "tokens.zarr/tokens/c/0/0/0").read_bytes()
    assert (
        shard.hex()
        == "003c00c0" + "0000000000000000" + "0400000000000000" + "ff" * 1008 + "fb8f156a"
    )
    stored = read_record(open_store(tmp_path), writer.folder).receipts[0].objects["tokens"]
    assert (stored.size_bytes, stored.crc32c) == (1032, (0xBC837142,))
