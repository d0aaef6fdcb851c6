"""Counts and strongest patches of atoms: worked by hand, and blocks against one go."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spg_core.atom_counts import (
    DEFECT,
    NORMAL,
    UNKNOWN,
    Active,
    AtomCounts,
    StrongestPatches,
    active_entries,
    defect_lift,
    evenness,
    marked_patches,
    rates,
    shares,
)
from spg_core.atom_patches import TopPatches, atom_activations
from spg_core.errors import ConfigError
from spg_core.sae import Sae
from spg_core.types import PatchGrid


def test_shares_do_not_weigh_how_many_tokens_a_class_has() -> None:
    rate = rates(np.array([[2, 20], [0, 0], [5, 0]]), np.array([10, 100]))

    assert shares(rate).tolist() == [[0.5, 0.5], [0.0, 0.0], [1.0, 0.0]]


def test_a_class_without_tokens_has_no_share() -> None:
    rate = rates(np.array([[2, 0]]), np.array([10, 0]))

    assert shares(rate).tolist() == [[1.0, 0.0]]


def test_evenness_is_0_for_one_class_and_1_for_all_alike() -> None:
    found = evenness(np.array([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0], [0, 0, 0]]))

    assert found[:3] == pytest.approx([0, 1, math.log(2) / math.log(3)])
    assert math.isnan(found[3])
    assert np.signbit(found[0]) == np.False_  # never "-0.00"


def test_evenness_over_one_class_is_not_defined() -> None:
    assert np.isnan(evenness(np.array([[1.0]]))).all()


def test_lift_by_hand() -> None:
    tokens = np.array([1000, 100, 50])
    active = np.array([[20, 20, 9], [0, 10, 0], [10, 0, 0], [4, 5, 99]])

    found = defect_lift(active, tokens)

    assert found[:3].tolist() == [10.0, math.inf, 0.0]
    assert math.isnan(found[3])  # 9 of the two kinds; what is not known does not count


def test_lift_is_not_defined_without_defect_patches() -> None:
    assert np.isnan(defect_lift(np.array([[20, 0, 0]]), np.array([100, 0, 0]))).all()


def test_a_patch_with_one_marked_pixel_is_marked_on_grids_that_do_not_divide() -> None:
    masks = np.zeros((2, 7, 10), np.uint8)
    masks[1, 6, 9] = 1
    masks[1, 0, 4] = 1

    found = marked_patches(masks, PatchGrid(2, 3))

    # columns begin at 0, 3, 6 and rows at 0, 3
    assert found.tolist() == [[False] * 6, [False, True, False, False, False, True]]


def _sae(sparsifier: str = "topk", clamp: bool = True) -> Sae:
    weights = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    return Sae(weights, weights, k=3, sparsifier=sparsifier, clamp=clamp)  # type: ignore[arg-type]


@pytest.mark.parametrize(("sparsifier", "clamp"), [("topk", True), ("topk", False), ("relu", True)])
def test_active_entries_are_the_activations_above_0(sparsifier: str, clamp: bool) -> None:
    sae, atoms = _sae(sparsifier, clamp), torch.tensor([7, 2, 11])
    tokens = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))

    found = active_entries(sae, tokens, atoms)

    dense = np.zeros((3, 40), np.float32)
    dense[found.atom, found.token] = found.value
    expected = atom_activations(sae, tokens, atoms).numpy()
    np.testing.assert_allclose(dense, expected, rtol=1e-5)
    assert len(found.atom) == np.count_nonzero(expected) > 0


@given(data=st.data(), keep=st.integers(1, 5), one_per_image=st.booleans())
def test_blocks_in_any_order_give_what_one_go_gives(
    data: st.DataObject, keep: int, one_per_image: bool
) -> None:
    n_atoms, n_images, n_patches = 3, 6, 4
    values = st.integers(0, 3)  # few values, so many ties
    flat = data.draw(st.lists(values, min_size=72, max_size=72))
    dense = np.array(flat, np.float32).reshape(n_atoms, n_images, n_patches)
    order = data.draw(st.permutations(range(n_images)))
    expected = TopPatches(n_atoms, n_patches, keep=keep, one_per_image=one_per_image)
    expected.add(np.arange(n_images), dense)

    top = StrongestPatches(n_atoms, keep=keep, one_per_image=one_per_image)
    for block in (order[:1], order[1:4], order[4:]):
        part = dense[:, block]
        atom, image, patch = np.nonzero(part)
        found = Active(atom, image * n_patches + patch, part[atom, image, patch])
        top.add(found, np.array(block)[image], patch)

    # TopPatches keeps no more patches of an image than there are places
    assert top.activation.tolist() == expected.activation.tolist()
    assert top.row.tolist() == expected.row.tolist()
    assert top.patch.tolist() == expected.patch.tolist()


def test_counts_equal_a_plain_count() -> None:
    draw = np.random.default_rng(3)
    dense = draw.random((4, 60)) < 0.2
    group, state = draw.integers(0, 2, 60), draw.choice([NORMAL, DEFECT, UNKNOWN], 60)
    counts = AtomCounts(4, 2)
    for block in (slice(0, 7), slice(7, 60)):
        atom, token = np.nonzero(dense[:, block])
        found = Active(atom, token, np.ones(len(atom), np.float32))
        counts.add(found, group[block], state[block])

    for one in range(4):
        for at in range(2):
            for kind in range(3):
                here = (group == at) & (state == kind)
                assert counts.active[one, at, kind] == np.count_nonzero(dense[one] & here)
                assert counts.tokens[at, kind] == np.count_nonzero(here)
    assert counts.frequency().tolist() == (dense.sum(1) / 60).tolist()


def test_keeping_no_patch_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be 1 or more, got 0"):
        StrongestPatches(2, keep=0, one_per_image=True)
