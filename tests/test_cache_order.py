import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.order import MAX_VIF, EpochOrder, n_steps, permute, plan_windows
from spg_core.errors import ConfigError


def test_a_permutation_keeps_its_values_for_ever() -> None:
    # Saved runs resume by these numbers: a change here breaks them.
    assert permute(np.arange(8), 8, seed=0, epoch=0, label="tokens").tolist() == [
        2,
        6,
        1,
        3,
        5,
        4,
        7,
        0,
    ]
    assert permute(np.array([10**12]), 10**15, seed=1, epoch=2, label="x").tolist() == [
        274587618377703
    ]


def test_an_epoch_is_one_permutation_cut_into_steps() -> None:
    order = EpochOrder(8, 0, 0, "tokens", batch=3)

    assert [order.step(step).tolist() for step in range(order.n_steps)] == [
        [2, 6, 1],
        [3, 5, 4],
        [7, 0],
    ]
    assert order.between(2, 5).tolist() == [1, 3, 5]
    assert EpochOrder(8, 0, 0, "tokens").step(4).tolist() == [5]


@given(st.integers(1, 3000), st.integers(0, 2**63), st.integers(0, 1000))
def test_every_item_comes_exactly_once(n: int, seed: int, epoch: int) -> None:
    assert sorted(permute(np.arange(n), n, seed, epoch, "tokens")) == list(range(n))


@given(st.integers(1, 10**15), st.data())
def test_a_position_does_not_depend_on_the_others_asked_for(n: int, data: st.DataObject) -> None:
    positions = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20)))

    together = permute(positions, n, 7, 3, "tokens")

    assert ((together >= 0) & (together < n)).all()
    assert together.tolist() == [
        int(permute(np.array([p]), n, 7, 3, "tokens")[0]) for p in positions
    ]


def test_seeds_epochs_and_uses_give_unrelated_permutations() -> None:
    base = permute(np.arange(10_000), 10_000, 0, 0, "tokens")

    for seed, epoch, label in [(1, 0, "tokens"), (0, 1, "tokens"), (0, 0, "images")]:
        other = permute(np.arange(10_000), 10_000, seed, epoch, label)
        assert (base == other).sum() < 10  # one is expected by chance
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.05


@pytest.mark.parametrize("n", [1000, 65_536, 100_003])
def test_batch_means_vary_as_those_of_iid_draws(n: int) -> None:
    batch = n // 50
    values = np.sort(np.random.default_rng(0).normal(size=n))
    # Sorted values are the worst case for a poor shuffle. Draws without replacement vary less
    # than iid ones by the factor (n - batch) / (n - 1).
    ideal = values.var() / batch * (n - batch) / (n - 1)

    means = []
    for epoch in range(20):
        shuffled = values[permute(np.arange(n), n, 3, epoch, "tokens")]
        means.append(shuffled[: 50 * batch].reshape(50, batch).mean(axis=1))

    assert 0.85 < np.var(means) / ideal < 1.15


@given(st.integers(1, 500), st.integers(1, 60), st.integers(0, 9))
def test_image_batches_resume_where_they_stopped(n_images: int, batch: int, start: int) -> None:
    order = EpochOrder(n_images, 1, 2, "images", batch)
    whole = [order.step(step) for step in range(order.n_steps)]
    start = min(start, len(whole))

    again = EpochOrder(n_images, 1, 2, "images", batch)
    rest = [again.step(step) for step in range(start, again.n_steps)]

    assert len(whole) == n_steps(n_images, batch)
    assert sorted(np.concatenate(whole).tolist()) == list(range(n_images))
    assert [rows.tolist() for rows in rest] == [rows.tolist() for rows in whole[start:]]


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 200), st.integers(0, 1500))
def test_windows_cover_every_token_once_within_their_memory(
    n_tokens: int, batch: int, extra: int
) -> None:
    allowed = batch + extra
    plan = plan_windows(n_tokens, batch, allowed)

    seen = []
    for window in range(plan.n_windows):
        start, stop = plan.bounds(window)
        tokens = plan.window_tokens(window, seed=5, epoch=1)
        assert len(tokens) == stop - start <= allowed
        assert (np.diff(tokens) > 0).all()
        seen += tokens.tolist()

    assert sorted(seen) == list(range(n_tokens))


def test_windows_keep_the_stated_variance_even_for_equal_neighbours() -> None:
    n_tokens, batch = 200_000, 500
    plan = plan_windows(n_tokens, batch, 20_000)
    values = np.random.default_rng(1).normal(size=-(-n_tokens // plan.segment_tokens))
    tokens = np.repeat(values, plan.segment_tokens)[:n_tokens]

    means = []
    for epoch in range(5):
        for window in range(plan.n_windows):
            inside = tokens[plan.window_tokens(window, 0, epoch)]
            inside = inside[permute(np.arange(len(inside)), len(inside), 0, epoch, f"{window}")]
            whole = len(inside) // batch
            means.append(inside[: whole * batch].reshape(whole, batch).mean(axis=1))

    assert plan.segment_tokens > 5
    assert np.var(np.concatenate(means)) / (tokens.var() / batch) < MAX_VIF * 1.05


def test_impossible_orders_are_refused() -> None:
    with pytest.raises(ConfigError, match="memory for 99 tokens does not hold a batch of 100"):
        plan_windows(1000, 100, 99)
    with pytest.raises(ConfigError, match="a batch needs at least one item, got 0"):
        n_steps(10, 0)
    with pytest.raises(ConfigError, match="a permutation has 1 to"):
        permute(np.arange(0), 0, 0, 0, "tokens")
