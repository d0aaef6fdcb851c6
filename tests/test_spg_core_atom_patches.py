"""Strongest patches of atoms: worked by hand, then against one plain pass, then in bounded memory.

A atoms, B images, P patches.
"""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from spg_core.atom_patches import TopPatches, atom_activations
from spg_core.errors import ArtifactError, ConfigError
from spg_core.sae import Sae, encode, to_dense

EYE = torch.eye(3)


def test_an_atom_that_loses_the_top_k_is_silent() -> None:
    sae = Sae(EYE, EYE, k=1)
    tokens = torch.tensor([[3.0, 2.0, 0.0], [1.0, 4.0, 0.0], [-1.0, -2.0, -3.0]])

    found = atom_activations(sae, tokens, torch.tensor([1, 0]))

    # token 0 keeps atom 0 alone, token 1 keeps atom 1 alone, token 2's best latent is clamped
    assert found.tolist() == [[0.0, 4.0, 0.0], [3.0, 0.0, 0.0]]


@pytest.mark.parametrize("sparsifier", ["topk", "relu"])
@pytest.mark.parametrize("clamp", [True, False])
def test_activations_are_the_positive_part_of_the_latents(sparsifier: str, clamp: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    encoder = torch.randn(17, 5, generator=generator)
    sae = Sae(encoder, encoder, k=4, sparsifier=sparsifier, clamp=clamp)  # type: ignore[arg-type]
    tokens = torch.randn(23, 5, generator=generator)
    atoms = torch.tensor([16, 0, 7])

    found = atom_activations(sae, tokens, atoms)

    dense = to_dense(encode(sae, tokens), 17)[:, atoms].T.clamp_min(0)
    torch.testing.assert_close(found, dense)


def test_the_top_patches_of_three_images_by_hand() -> None:
    # one atom; images of rows 4, 5, 9 with three patches each
    maps = np.array([[[5, 4, 0], [1, 5, 2], [0, 0, 3]]], np.float32)
    rows = np.array([4, 5, 9])

    one = _collect(rows, maps, keep=3, one_per_image=True)
    many = _collect(rows, maps, keep=3, one_per_image=False)

    assert one.activation.tolist() == [[5, 5, 3]]
    assert one.row.tolist() == [[4, 5, 9]]
    assert one.patch.tolist() == [[0, 1, 2]]
    assert one.maps.tolist() == [[[5, 4, 0], [1, 5, 2], [0, 0, 3]]]
    assert many.activation.tolist() == [[5, 5, 4]]
    assert many.row.tolist() == [[4, 5, 4]]
    assert many.patch.tolist() == [[0, 1, 1]]
    assert many.maps.tolist() == [[[5, 4, 0], [1, 5, 2], [5, 4, 0]]]


def test_places_without_an_active_patch_stay_empty() -> None:
    maps = np.array([[[0, 2], [0, 0]], [[0, 0], [0, 0]]], np.float32)

    top = _collect(np.array([0, 1]), maps, keep=2, one_per_image=True)

    assert top.row.tolist() == [[0, -1], [-1, -1]]
    assert top.patch.tolist() == [[1, -1], [-1, -1]]
    assert top.activation.tolist() == [[2, 0], [0, 0]]
    assert not top.maps[1].any()


@given(
    seed=st.integers(0, 10_000),
    n_images=st.integers(1, 12),
    n_patches=st.integers(1, 9),
    keep=st.integers(1, 10),
    block=st.integers(1, 12),
    one_per_image=st.booleans(),
)
def test_any_blocks_in_any_order_give_what_one_sort_gives(
    seed: int, n_images: int, n_patches: int, keep: int, block: int, one_per_image: bool
) -> None:
    rng = np.random.default_rng(seed)
    # few distinct values, so that ties run across patches, images and blocks
    maps = rng.integers(0, 4, (2, n_images, n_patches)).astype(np.float32)
    rows = np.sort(rng.choice(100, n_images, replace=False))

    top = TopPatches(2, n_patches, keep=keep, one_per_image=one_per_image)
    order = rng.permutation(n_images)
    for start in range(0, n_images, block):
        chosen = order[start : start + block]
        top.add(rows[chosen], maps[:, chosen])

    for atom in range(2):
        expected = _plain_top(rows, maps[atom], keep, one_per_image)
        found = zip(top.activation[atom], top.row[atom], top.patch[atom], strict=True)
        assert [tuple(map(int, entry)) for entry in found if entry[0] > 0] == expected
        for place, (_, row, _) in enumerate(expected):
            image = int(np.flatnonzero(rows == row)[0])
            np.testing.assert_array_equal(top.maps[atom, place], maps[atom, image])


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    def peak(n_blocks: int) -> int:
        tracemalloc.start()
        top = TopPatches(8, 50, keep=8, one_per_image=True)
        for block in range(n_blocks):
            maps = np.random.default_rng(block).random((8, 16, 50), np.float32)
            top.add(np.arange(block * 16, block * 16 + 16), maps)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(2)  # first calls import and cache things

    assert peak(100) < 1.3 * peak(5)


def test_tokens_of_another_width_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"shape \(2, 4\), expected \(n, 3\)"):
        atom_activations(Sae(EYE, EYE, k=1), torch.zeros(2, 4), torch.tensor([0]))


def test_keeping_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be 1 or more, got 0"):
        TopPatches(1, 4, keep=0, one_per_image=True)


def _collect(
    rows: NDArray[np.int64], maps: NDArray[np.float32], keep: int, one_per_image: bool
) -> TopPatches:
    top = TopPatches(len(maps), maps.shape[2], keep=keep, one_per_image=one_per_image)
    top.add(rows, maps)
    return top


def _plain_top(
    rows: NDArray[np.int64], maps: NDArray[np.float32], keep: int, one_per_image: bool
) -> list[tuple[int, int, int]]:
    """(activation, row, patch) of one atom's maps `(B, P)`, by sorting everything in Python."""
    entries = [
        (int(value), int(row), patch)
        for row, one in zip(rows, maps, strict=True)
        for patch, value in enumerate(one)
        if value > 0
    ]
    entries.sort(key=lambda entry: (-entry[0], entry[1], entry[2]))
    if one_per_image:
        first = {row: entry for entry in reversed(entries) for row in [entry[1]]}
        entries = [entry for entry in entries if first[entry[1]] is entry]
    return entries[:keep]
