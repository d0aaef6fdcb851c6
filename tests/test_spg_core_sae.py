"""TopK, encoding and decoding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spg_core.errors import ArtifactError, ConfigError
from spg_core.sae import Sae, decode, encode, to_dense
from spg_core.sae_loss import error_scale, fvu, variation
from spg_core.sae_quality import SaeSums, TokenSums
from spg_core.sae_topk import top_entries, top_set


def make_sae(k: int, *, clamp: bool = True) -> Sae:
    encoder = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    dictionary = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.0, -2.0]])
    return Sae(encoder, dictionary, k, clamp=clamp)


def random_rows(n_rows: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn((n_rows, width), generator=torch.Generator().manual_seed(seed))


def test_two_largest_latents_of_a_token_by_hand() -> None:
    tokens = torch.tensor([[2.0, 1.0]])  # pre-activations 2, 1, 3, -2

    latents = encode(make_sae(k=2), tokens)

    assert latents.values.tolist() == [[3.0, 2.0]]
    assert latents.indices.tolist() == [[2, 0]]
    # 3 * (0.6, 0.8) + 2 * (1, 0)
    torch.testing.assert_close(decode(make_sae(k=2), latents), torch.tensor([[3.8, 2.4]]))


@pytest.mark.parametrize(("clamp", "smallest"), [(True, 0.0), (False, -2.0)])
def test_clamp_at_zero_comes_after_topk(clamp: bool, smallest: float) -> None:
    latents = encode(make_sae(k=4, clamp=clamp), torch.tensor([[2.0, 1.0]]))

    assert latents.values[0, -1] == smallest
    assert latents.indices[0].tolist() == [2, 0, 1, 3]


def test_relu_keeps_every_positive_latent() -> None:
    sae = Sae(make_sae(k=1).encoder, make_sae(k=1).dictionary, k=32, sparsifier="relu")

    latents = encode(sae, torch.tensor([[2.0, 1.0]]))

    assert to_dense(latents, 4).tolist() == [[2.0, 1.0, 3.0, 0.0]]
    torch.testing.assert_close(decode(sae, latents), torch.tensor([[3.8, 3.4]]))


def test_fvu_l0_and_dead_atoms_by_hand() -> None:
    tokens = torch.tensor([[2.0, 1.0], [-4.0, 0.0]])  # mean (-1, 0.5), variation 9.25 + 9.25
    sums, spread = SaeSums(make_sae(k=2)), TokenSums(2)

    for batch in tokens.split(1):
        sums.add(batch)
        spread.add(batch)

    # of the first token 3 * (0.6, 0.8) + 2 * (1, 0), of the second 4 * (0, -2)
    assert float(sums.error) == pytest.approx(1.8**2 + 1.4**2 + 4**2 + 8**2)
    assert float(spread.variation) == pytest.approx(18.5)
    assert float(fvu(sums.error, spread.variation)) == pytest.approx(85.2 / 18.5)
    assert sums.n_nonzero == 3
    assert sums.ever_active.tolist() == [True, False, True, True]


def test_fvu_of_tokens_that_are_all_equal_is_0() -> None:
    tokens = torch.ones(3, 2)

    assert float(fvu(torch.tensor(0.5), variation(tokens))) == 0


def test_atoms_active_in_any_batch_are_active() -> None:
    sums = SaeSums(make_sae(k=1))

    # k = 1: latents (2 at atom 0, tied with atom 2), then (0.5 at atom 1, tied with atom 2)
    for batch in (torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.5]])):
        sums.add(batch)

    assert sums.ever_active.tolist() == [True, True, False, False]


@settings(max_examples=60, deadline=None)
@given(
    n_rows=st.integers(0, 9),
    width=st.sampled_from([1, 7, 16, 48, 64, 257, 512]),
    share=st.floats(0, 1),
    n_values=st.sampled_from([2, 5, 10_000]),
    seed=st.integers(0, 99),
)
def test_top_entries_equal_a_stable_sort_whatever_the_ties(
    n_rows: int, width: int, share: float, n_values: int, seed: int
) -> None:
    k = max(1, round(share * width))
    rows = torch.randint(
        -n_values, n_values, (n_rows, width), generator=torch.Generator().manual_seed(seed)
    ).float()

    values, indices = top_entries(rows, k)

    ranked, order = torch.sort(rows, dim=1, descending=True, stable=True)
    assert torch.equal(values, ranked[:, :k])
    assert torch.equal(rows.gather(1, indices), values)
    assert torch.equal(indices.sort(1).values, order[:, :k].sort(1).values)


@settings(max_examples=60, deadline=None)
@given(
    n_rows=st.integers(0, 9),
    width=st.sampled_from([1, 7, 16, 257, 1024, 1100]),
    share=st.floats(0, 1),
    n_values=st.sampled_from([2, 5, 10_000]),
    n_threads=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_a_top_set_holds_the_top_entries(
    n_rows: int, width: int, share: float, n_values: int, n_threads: int, seed: int
) -> None:
    k = max(1, round(share * width))
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(-n_values, n_values, (n_rows, width), generator=generator).float()
    threads = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        values, indices = top_set(rows, k)
    finally:
        torch.set_num_threads(threads)

    _, expected = top_entries(rows, k)
    assert torch.equal(rows.gather(1, indices), values)
    assert torch.equal(indices.sort(1).values, expected.sort(1).values)


def test_a_row_that_is_not_finite_still_has_k_entries() -> None:
    rows = torch.tensor([[3.0, float("nan"), 1.0, 2.0], [4.0, 1.0, 3.0, 2.0]])

    values, indices = top_set(rows, 2)

    assert values.shape == indices.shape == (2, 2)
    assert indices[1].sort().values.tolist() == [0, 2]


@settings(max_examples=20, deadline=None)
@given(n_tokens=st.integers(1, 40), k=st.sampled_from([1, 3, 30, 64]), seed=st.integers(0, 99))
def test_a_token_is_encoded_and_decoded_alike_alone_and_in_a_batch(
    n_tokens: int, k: int, seed: int
) -> None:
    sae = Sae(random_rows(64, 24, seed), random_rows(64, 24, seed + 1), k)
    tokens = random_rows(n_tokens, 24, seed + 2)

    together = decode(sae, encode(sae, tokens))

    alone = torch.cat([decode(sae, encode(sae, token[None])) for token in tokens])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_more_tokens_than_a_chunk_are_all_encoded() -> None:
    sae = Sae(random_rows(64, 8, 0), random_rows(64, 8, 1), k=3)
    tokens = random_rows(2500, 8, 2)

    latents = encode(sae, tokens)

    expected = torch.topk(tokens @ sae.encoder.T, 3).values.clamp_min(0)
    torch.testing.assert_close(latents.values, expected)


def test_more_latents_than_atoms_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"k = 5 latents a token, but the SAE has 4 atoms"):
        make_sae(k=5)


def test_encoder_and_dictionary_of_two_saes_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"encoder \(4, 2\) and dictionary \(3, 2\)"):
        Sae(torch.zeros(4, 2), torch.zeros(3, 2), 1)


def test_tokens_of_another_width_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"tokens of shape \(5, 3\), expected \(n, 2\)"):
        encode(make_sae(k=1), torch.zeros(5, 3))


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ConfigError, match="'median' is not one of mean, sum"):
        error_scale("median", 1, 1)  # type: ignore[arg-type]
