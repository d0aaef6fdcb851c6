"""Whatever a list holds: a manifest, or one error that names it; never a crash, never a hang."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.build import build_manifest
from manifests.problems import Layout
from spg_core.errors import DatasetError
from tests.dataset_files import picture

KEYS = ["train", "test", "Test", "validation", "meta", "prefix", "normal_class", "bolt", "category"]
KEYS += ["img_path", "image_path", "filename", "mask_path", "maskname", "label", "label_index"]
KEYS += ["anomaly", "anomaly_class", "specie_name", "label_name", "cls_name", "split", ""]
WORDS = [
    "a.png",
    "./a.png",
    "/a.png",
    "..",
    "a.png/",
    "OK",
    "good",
    "bad",
    "0",
    "1",
    "\0",
    "\ud800",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=20,
)


def outcome(root: Path, layout: Layout) -> str:
    try:
        built = build_manifest(root, layout=layout, dataset="shop", split="all", workers=1)
        return str(built.manifest.n_images)
    except DatasetError as error:
        message = str(error)
    assert "\n" in message
    assert message.replace("\n", "").isprintable()
    message.encode()
    return message


@pytest.mark.parametrize("layout", ["meta", "list", "real-iad"])
@settings(max_examples=150, deadline=None)
@given(value=VALUES)
def test_any_json_is_a_manifest_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, layout: Layout, value: Any
) -> None:
    root = tmp_path_factory.mktemp("any")
    picture(root, "a.png")
    (root / "meta.json").write_text(json.dumps(value))

    assert outcome(root, layout)


@settings(max_examples=150, deadline=None)
@given(header=st.lists(st.sampled_from(KEYS), min_size=1), body=st.text() | st.binary())
def test_any_table_is_a_manifest_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, header: list[str], body: str | bytes
) -> None:
    root = tmp_path_factory.mktemp("any")
    picture(root, "a.png")
    rows = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    (root / "list.csv").write_bytes(",".join(header).encode() + b"\na.png,0,good\n" + rows)

    assert outcome(root, "list")
