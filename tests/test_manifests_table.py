"""The manifest as a table and as Parquet bytes that anybody may have written."""

import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.schema import MAX_PIXELS, SCHEMA, VERSION_KEY, schema_for
from manifests.table import Manifest, manifest_from_bytes, manifest_to_bytes
from spg_core.errors import CorruptStore, DatasetError, StoreError

HEX_B = "b" * 64
METADATA: dict[bytes | str, bytes | str] = {VERSION_KEY: b"1"}


def columns(n_rows: int = 4) -> dict[str, list[Any]]:
    labels = [row % 2 for row in range(n_rows)]
    masks = [f"bolt/masks/{row}.png" if label else None for row, label in enumerate(labels)]
    return {
        "image_id": [f"{row:064x}" for row in range(n_rows)],
        "dataset": ["shop"] * n_rows,
        "category": ["bolt" if row < n_rows // 2 else "nut" for row in range(n_rows)],
        "split": ["test"] * n_rows,
        "defect": ["scratch" if label else "good" for label in labels],
        "label": labels,
        "image_path": [f"bolt/test/{row}.png" for row in range(n_rows)],
        "mask_path": masks,
        "mask_id": [HEX_B if label else None for label in labels],
        "width": [7] * n_rows,
        "height": [5] * n_rows,
        "mask_pixels": [3 * label for label in labels],
        "row": list(range(n_rows)),
    }


def manifest(n_rows: int = 4) -> Manifest:
    return Manifest(pa.table(columns(n_rows), schema=SCHEMA))


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def test_a_manifest_tells_its_categories_rows_and_labels() -> None:
    made = manifest()

    assert (made.n_images, made.dataset, made.categories) == (4, "shop", ("bolt", "nut"))
    assert made.labels.tolist() == [0, 1, 0, 1]
    assert made.rows_of("nut").tolist() == [2, 3]
    assert made.select([3, 0])["row"].to_pylist() == [3, 0]
    assert made.column("width") == [7, 7, 7, 7]
    assert not made.has_thumbnails


def test_an_unknown_category_is_refused_with_those_there_are() -> None:
    with pytest.raises(DatasetError, match="no category 'cog' in shop; there are bolt, nut"):
        manifest().rows_of("cog")


def test_every_column_explains_itself_in_the_file() -> None:
    schema = pq.read_schema(io.BytesIO(manifest_to_bytes(manifest())))

    assert (schema.metadata or {})[VERSION_KEY] == b"1"
    for field in schema:
        assert len((field.metadata or {})[b"comment"]) > 10, field.name


TEXT = st.text(
    st.characters(exclude_characters="/\\", exclude_categories=("Cs", "Cc")), min_size=1, max_size=9
).filter(lambda text: text not in (".", "..") and text[1:2] != ":" and text != "good")
DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    with_thumbnails = draw(st.booleans())
    dataset = draw(TEXT)
    rows: list[dict[str, Any]] = []
    for row in range(draw(st.integers(1, 6))):
        label = draw(st.integers(0, 1))
        has_mask = draw(st.booleans())
        width, height = draw(st.integers(1, 5000)), draw(st.integers(1, 5000))
        pixels = draw(st.integers(0, width * height)) if label and has_mask else 0
        rows.append(
            {
                "image_id": draw(DIGEST),
                "dataset": dataset,
                "category": draw(TEXT),
                "split": draw(st.sampled_from(["train", "test"])),
                "defect": draw(TEXT) if label else "good",
                "label": label,
                "image_path": f"{draw(TEXT)}/{row}",
                "mask_path": draw(TEXT) if has_mask else None,
                "mask_id": draw(DIGEST) if has_mask else None,
                "width": width,
                "height": height,
                "mask_pixels": pixels,
                "row": row,
            }
        )
        if with_thumbnails:
            picture = b"\xff\xd8\xff" + draw(st.binary(max_size=20))
            rows[-1]["thumbnail"] = draw(st.sampled_from([None, picture]))
    return Manifest(pa.Table.from_pylist(rows, schema=schema_for(thumbnails=with_thumbnails)))


@settings(deadline=None, max_examples=60)
@given(made=manifests())
def test_a_manifest_comes_back_as_it_was_and_gives_the_same_bytes(made: Manifest) -> None:
    data = manifest_to_bytes(made)

    back = manifest_from_bytes(data, "here")

    assert back.table.equals(made.table, check_metadata=True)
    assert manifest_to_bytes(back) == data


def test_it_opens_in_pandas_as_it_is() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")

    frame = pandas.read_parquet(io.BytesIO(manifest_to_bytes(manifest())))

    assert list(frame.columns) == SCHEMA.names
    assert frame["label"].tolist() == [0, 1, 0, 1]


def test_it_opens_in_polars_as_it_is() -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")

    frame = polars.read_parquet(io.BytesIO(manifest_to_bytes(manifest())))

    assert frame.columns == SCHEMA.names
    assert frame["label"].to_list() == [0, 1, 0, 1]


def test_it_opens_in_duckdb_as_it_is(tmp_path: Any) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    path = tmp_path / "manifest.parquet"
    path.write_bytes(manifest_to_bytes(manifest()))

    found = duckdb.sql(f"select category, sum(label) from '{path}' group by 1 order by 1")

    assert found.fetchall() == [("bolt", 1), ("nut", 1)]


def change(name: str, row: int, value: Any) -> Callable[[dict[str, list[Any]]], None]:
    def apply(values: dict[str, list[Any]]) -> None:
        values[name][row] = value

    return apply


EDITS = [
    ("row", 2, 5, "row 2: row is 5 (rows count up from 0"),
    ("label", 0, 2, "row 0: label is 2 (expected 0 or 1"),
    ("label", 0, 1, "row 0: defect is 'good' (good goes with label 0"),
    ("defect", 1, "good", "row 1: defect is 'good'"),
    ("split", 3, "val", "row 3: split is 'val' (expected train or test"),
    ("dataset", 1, "other", "row 1: dataset is 'other' (expected one name"),
    ("category", 1, "a/b", "row 1: category is 'a/b' (it holds a slash"),
    ("image_id", 0, "A" * 64, "row 0: image_id is 'AAAA"),
    ("image_id", 0, "a" * 64 + "\n", "expected 64 hex digits"),
    ("mask_id", 1, "b" * 63, "row 1: mask_id"),
    ("mask_id", 0, HEX_B, "row 0: mask_id is 'bbbb"),
    ("mask_path", 1, None, "expected 0 without a mask"),
    ("image_path", 0, "", "it is empty"),
    ("image_path", 0, "../secret.png", "it leaves the dataset root with '..'"),
    ("image_path", 0, "a/../../b.png", "it leaves the dataset root with '..'"),
    ("image_path", 0, "a/..", "it leaves the dataset root with '..'"),
    ("image_path", 0, "/etc/passwd", "it is absolute"),
    ("image_path", 0, "C:/a.png", "it starts with a drive letter"),
    ("image_path", 0, "a\\..\\b.png", "it holds a backslash"),
    ("image_path", 0, "a//b.png", "it is not in its shortest form"),
    ("image_path", 0, "./b.png", "it is not in its shortest form"),
    ("image_path", 0, "a\nb.png", "it holds a control character"),
    ("image_path", 0, "x" * 4097, "a value of 4097 bytes"),
    ("image_path", 0, "bolt/test/1.png", "names the same file twice"),
    ("mask_path", 1, "../m.png", "row 1: mask_path is '../m.png'"),
    ("width", 0, 0, "row 0: width is 0 (expected 1 or more"),
    ("height", 0, -5, "row 0: height is -5"),
    ("width", 0, 2**31 - 1, f"above {MAX_PIXELS}"),
    ("mask_pixels", 1, 36, "expected 0 to width x height"),
    ("mask_pixels", 1, -1, "expected 0 to width x height"),
]


@pytest.mark.parametrize(("name", "row", "value", "message"), EDITS)
def test_an_edited_value_is_refused_and_the_file_named(
    name: str, row: int, value: Any, message: str
) -> None:
    values = columns()
    change(name, row, value)(values)
    data = parquet(pa.table(values, schema=SCHEMA))

    with pytest.raises(CorruptStore) as caught:
        manifest_from_bytes(data, "s3://bucket/manifest.parquet")

    assert str(caught.value).startswith("s3://bucket/manifest.parquet: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", [f.name for f in SCHEMA if not f.nullable])
def test_an_empty_value_is_refused_where_none_is_allowed(name: str) -> None:
    values = columns()
    values[name][1] = None
    loose = pa.schema([field.with_nullable(True) for field in SCHEMA], metadata=METADATA)

    with pytest.raises(CorruptStore, match=f"column {name} has 1 empty values"):
        manifest_from_bytes(parquet(pa.table(values, schema=loose)), "m")


def test_missing_unknown_and_wrongly_typed_columns_are_refused() -> None:
    table = manifest().table

    with pytest.raises(CorruptStore, match=r"missing \['label'\], unknown none"):
        manifest_from_bytes(parquet(table.drop_columns(["label"])), "m")
    with pytest.raises(CorruptStore, match=r"missing none, unknown \['extra'\]"):
        manifest_from_bytes(parquet(table.append_column("extra", pa.array([1] * 4))), "m")
    wide = table.set_column(5, "label", table["label"].cast(pa.int64()))
    with pytest.raises(CorruptStore, match="column label is int64, expected int8"):
        manifest_from_bytes(parquet(wide), "m")


def test_a_file_without_rows_or_version_is_refused() -> None:
    table = manifest().table

    with pytest.raises(CorruptStore, match="claims 0 rows"):
        manifest_from_bytes(parquet(table.slice(0, 0)), "m")
    with pytest.raises(CorruptStore, match="no manifest version"):
        manifest_from_bytes(parquet(table.replace_schema_metadata(None)), "m")
    newer = table.replace_schema_metadata({VERSION_KEY: b"2"})
    with pytest.raises(StoreError, match=r"version 2 is newer than 1.*update spg-pipe"):
        manifest_from_bytes(parquet(newer), "m")


def test_a_thumbnail_that_is_no_jpeg_is_refused() -> None:
    schema = schema_for(thumbnails=True)
    values = {**columns(), "thumbnail": [None, b"\xff\xd8\xff ok", b"<script>", None]}

    with pytest.raises(CorruptStore, match=r"row 2: thumbnail is b'<script>' \(expected a JPEG"):
        manifest_from_bytes(parquet(pa.table(values, schema=schema)), "m")


def test_text_that_is_not_utf8_is_refused() -> None:
    values = columns()
    table = pa.table(values, schema=SCHEMA)
    bad = pa.array([b"\xff.png", b"1", b"2", b"3"], pa.binary()).view(pa.string())
    broken = table.set_column(6, SCHEMA.field("image_path"), bad)

    with pytest.raises(CorruptStore, match="m: cannot be read as Parquet"):
        manifest_from_bytes(parquet(broken), "m")


def test_a_small_file_that_unfolds_to_much_more_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Parquet keeps a repeated text once: a gigabyte may sit in a kilobyte.
    n_rows = 2000
    values = columns(n_rows)
    values["category"] = ["x" * 4000] * n_rows
    data = parquet(pa.table(values, schema=SCHEMA))
    monkeypatch.setattr("manifests.check.MAX_COLUMN_BYTES", 7_999_999)

    assert len(data) < 200_000
    with pytest.raises(CorruptStore, match="column category unfolds to 8000000 bytes"):
        manifest_from_bytes(data, "m")


def test_a_file_of_kilobytes_cannot_take_gigabytes() -> None:
    # 6.7 GiB once read; here a hundredth of it, which is the same to every check but one.
    schema = schema_for(thumbnails=True)
    picture = b"\xff\xd8\xff" + bytes(2**20 - 3)
    values = {**columns(70), "thumbnail": [picture] * 70}
    data = parquet(pa.table(values, schema=schema))

    assert len(data) < 100_000
    with pytest.raises(CorruptStore, match=r"m: its \d+ bytes unfold to 734\d+"):
        manifest_from_bytes(data, "m")


def test_large_columns_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    values = columns(2000)
    values["category"] = values["dataset"] = ["x" * 2000] * 2000
    data = parquet(pa.table(values, schema=SCHEMA))
    monkeypatch.setattr("manifests.check.FREE_BYTES", 7_999_999)
    monkeypatch.setattr("manifests.check.MAX_GROWTH", 1)

    with pytest.raises(CorruptStore, match=r"bytes unfold to 8\d+;"):
        manifest_from_bytes(data, "m")


def test_a_manifest_of_other_images_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("columns were read")

    monkeypatch.setattr(pq.ParquetFile, "read", read)

    with pytest.raises(CorruptStore, match="the manifest has 4 rows for 3 images"):
        manifest_from_bytes(manifest_to_bytes(manifest()), "m", n_images=3)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_torn_or_flipped_file_is_an_error_or_the_same_manifest(data: st.DataObject) -> None:
    made = manifest()
    whole = manifest_to_bytes(made)
    damaged = bytearray(whole)
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        damaged[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))

    try:
        back: Manifest | str = manifest_from_bytes(bytes(damaged), "torn.parquet")
    except StoreError as error:
        back = str(error)

    # What survives is a flip in the field comments or the writer's name, which nobody relies on.
    if isinstance(back, Manifest):
        assert back.table.equals(made.table)
    else:
        assert back.startswith("torn.parquet: ")


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"PAR1PAR1", b"{}", b"PAR1" + b"\xff" * 50 + b"PAR1"]
)
def test_bytes_that_are_not_parquet_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptStore, match=r"m\.parquet: cannot be read as Parquet"):
        manifest_from_bytes(data, "m.parquet")
