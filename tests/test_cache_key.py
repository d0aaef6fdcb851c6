import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.key import cache_key, canonical_json, explain_difference, images_digest
from spg_core.errors import StoreError
from tests.cache_samples import COVERS

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(max_size=5), json_values, max_size=4)


def test_a_key_is_sixteen_digits_of_the_sha256_of_canonical_json() -> None:
    text = b'{"a":[1,"\\u00e9"],"b":null}'

    assert canonical_json({"b": None, "a": [1, "é"]}) == text
    assert cache_key({"b": None, "a": [1, "é"]}) == hashlib.sha256(text).hexdigest()[:16]


def test_the_images_digest_hashes_one_line_an_image() -> None:
    first, second = "0" * 64, "ab" * 32

    expected = hashlib.sha256(f"{first}\n{second}\n".encode()).hexdigest()

    assert images_digest([first, second]) == expected
    assert images_digest([second, first]) != expected


@given(json_objects)
def test_the_order_of_fields_does_not_change_a_key(covers: dict[str, Any]) -> None:
    assert cache_key(covers) == cache_key(dict(reversed(covers.items())))


@given(json_objects, json_objects)
def test_two_keys_differ_exactly_when_a_difference_is_explained(
    a: dict[str, Any], b: dict[str, Any]
) -> None:
    assert (cache_key(a) == cache_key(b)) == (explain_difference(a, b) == [])


def test_a_difference_is_told_in_words() -> None:
    other = {**COVERS, "backbone": {**COVERS["backbone"], "resize": "lanczos"}, "norm": True}

    assert explain_difference(COVERS, other) == [
        'backbone.resize is "bicubic" in one and "lanczos" in the other',
        "only the second states norm (true)",
    ]


def test_what_is_not_json_has_no_key() -> None:
    with pytest.raises(StoreError, match="not plain JSON"):
        cache_key({"size": float("nan")})
    with pytest.raises(StoreError, match="image id 'x' of row 1 is not a SHA-256"):
        images_digest(["0" * 64, "x"])
