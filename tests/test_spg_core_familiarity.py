"""Familiarity: distances to good parts' tokens, and what is usual among these."""

import pytest
import torch

from spg_core.errors import MetricError
from spg_core.familiarity import (
    FEWEST,
    TIMES,
    applicability,
    kept_rows,
    strangeness,
    usual_limit,
)


def around(directions, n, noise=0.05, seed=0):
    """Make images `(n, P, d)` whose patches lie around some directions `(P, d)`."""
    generator = torch.Generator().manual_seed(seed)
    return directions + noise * torch.randn(n, *directions.shape, generator=generator)


@pytest.fixture
def directions():
    return torch.eye(16)[:8]


def test_strangeness_is_the_quarter_of_the_distances_to_the_nearest_token(directions):
    image = torch.stack([*directions[:2], *torch.eye(16)[8:14]])[None]

    found = strangeness(image, directions)

    # two patches of eight are there, six at a right angle to all: 0.25 lies between at 7 * 0.25
    assert found.item() == pytest.approx(0.75)


def test_lengths_of_tokens_say_nothing(directions):
    images = around(directions, 3)

    short = strangeness(images * 0.01, directions * 100)

    torch.testing.assert_close(short, strangeness(images, directions))


def test_a_defect_in_a_fifth_of_the_patches_leaves_an_image_familiar(directions):
    good = around(directions.repeat(5, 1), 6)
    rows = kept_rows(6, 40)
    limit = usual_limit(good, rows)
    known = good.flatten(0, 1)
    broken, other = around(directions.repeat(5, 1), 1, seed=1), torch.eye(16)[8:].repeat(5, 1)[None]
    broken[:, :8] = torch.eye(16)[8:]

    applies = applicability(strangeness(torch.cat([broken, other]), known), limit)

    assert applies[0] > 0.5 > applies[1]


def test_at_the_limit_applicability_is_a_half_and_at_0_one():
    applies = applicability(torch.tensor([0.0, 0.2, 0.6]), 0.2)

    torch.testing.assert_close(applies, torch.tensor([1.0, 0.5, 0.25]))


def test_the_limit_is_that_of_the_strangest_part_among_the_others(directions):
    good = around(directions, 5)
    rows = kept_rows(5, 8)

    limit = usual_limit(good, rows)

    alone = [
        strangeness(good[at : at + 1], torch.cat([good[:at], good[at + 1 :]]).flatten(0, 1))
        for at in range(5)
    ]
    assert limit == pytest.approx(TIMES * max(one.item() for one in alone))


def test_copies_leave_room_for_rounding(directions):
    assert usual_limit(directions.expand(4, -1, -1), kept_rows(4, 8)) == pytest.approx(1e-3)


def test_too_few_parts_say_nothing(directions):
    with pytest.raises(MetricError, match=f"2 good parts; from {FEWEST} on"):
        usual_limit(around(directions, 2), kept_rows(2, 8))


@pytest.mark.parametrize(
    ("n_images", "n_patches", "most", "k"), [(3, 8, 100, 8), (3, 8, 10, 3), (20, 8, 10, 1)]
)
def test_as_many_patches_of_each_image_are_kept_as_there_is_room_for(n_images, n_patches, most, k):
    rows = kept_rows(n_images, n_patches, most)

    assert rows.shape == (n_images, k)
    assert (rows.diff(dim=-1) > 0).all()
    assert ((rows >= 0) & (rows < n_patches)).all()
    assert torch.equal(rows, kept_rows(n_images, n_patches, most))
