"""Memories: the nearest token, AnomalyDINO's image score, and PatchCore's coreset."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from spg_core.anomaly_map import top_mean
from spg_core.guides import unit
from spg_core.memory import coreset, nearest_distances


def some_tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return unit(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def plain_anomaly_dino(images: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Patch distances and image scores as AnomalyDINO has them, by scikit-learn."""
    memory = memory / np.linalg.norm(memory, axis=1, keepdims=True)
    search = NearestNeighbors(n_neighbors=1, algorithm="brute", metric="sqeuclidean").fit(memory)
    distances, scores = [], []
    for tokens in images:
        tokens = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
        squared, _ = search.kneighbors(tokens)
        found = squared[:, 0] / 2  # equals 1 - cosine
        n_top = int(len(found) * 0.01)
        top = np.sort(found)[::-1][:n_top] if n_top else found.max(keepdims=True)
        distances.append(found)
        scores.append(float(top.mean()))
    return np.stack(distances), scores


def plain_coreset(tokens: np.ndarray, n_kept: int) -> list[int]:
    """PatchCore's greedy choice from the whole matrix of distances."""
    matrix = np.linalg.norm(tokens[:, None] - tokens[None], axis=-1)
    farness, chosen = np.linalg.norm(matrix, axis=1), []
    for at in range(n_kept):
        chosen.append(int(farness.argmax()))
        farness = matrix[chosen[-1]] if at == 0 else np.minimum(farness, matrix[chosen[-1]])
    return chosen


def test_the_nearest_of_two_by_hand() -> None:
    memory = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    asked = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])

    found = nearest_distances(asked, memory)

    torch.testing.assert_close(found, torch.tensor([[0.0, 0.2, 1.6]]))


def test_an_opposite_token_is_at_2_and_one_of_length_0_at_1() -> None:
    found = nearest_distances(torch.tensor([[[-1.0, 0.0], [0.0, 0.0]]]), torch.tensor([[1.0, 0.0]]))

    assert found.tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize(("patches", "n_memory"), [(784, 3136), (35, 1025), (7, 1)])
def test_distances_and_image_scores_are_those_of_a_plain_anomaly_dino(patches, n_memory) -> None:
    images, memory = some_tokens(3, patches, 24), some_tokens(n_memory, 24, seed=1)

    distances, scores = plain_anomaly_dino(images.double().numpy(), memory.double().numpy())

    found = nearest_distances(images, memory)
    np.testing.assert_allclose(found.numpy(), distances, atol=1e-6)
    np.testing.assert_allclose(top_mean(found, 0.01).numpy(), scores, atol=1e-6)


@given(
    n_images=st.integers(1, 4), n_memory=st.integers(1, 3000), patches=st.sampled_from([1, 6, 35])
)
def test_an_image_has_the_same_bits_in_any_company(n_images, n_memory, patches) -> None:
    images, memory = some_tokens(n_images, patches, 8), some_tokens(n_memory, 8, seed=1)

    together = nearest_distances(images, memory)

    alone = torch.cat([nearest_distances(image[None], memory) for image in images])
    assert torch.equal(together, alone)


def test_a_token_that_is_in_the_memory_is_at_0() -> None:
    memory = some_tokens(2000, 16)

    assert nearest_distances(memory[None, 1500:1600], memory).max() < 1e-6


def test_a_larger_memory_is_never_farther() -> None:
    images, memory = some_tokens(2, 20, 8), some_tokens(2100, 8, seed=1)

    assert bool(
        (nearest_distances(images, memory) <= nearest_distances(images, memory[:900]) + 1e-6).all()
    )


def test_the_top_of_few_patches_is_their_maximum() -> None:
    assert top_mean(torch.tensor([[0.1, 0.7, 0.3]]), 0.01).tolist() == pytest.approx([0.7])
    assert top_mean(torch.arange(250.0)[None], 0.01).tolist() == [248.5]
    assert top_mean(torch.tensor([[0.0, 1.0, 0.5, 0.5]]), share=0.5).tolist() == [0.75]


@pytest.mark.parametrize("seed", range(5))
def test_a_coreset_is_that_of_the_whole_matrix_of_distances(seed: int) -> None:
    tokens = some_tokens(120, 6, seed=seed)

    assert coreset(tokens, 30).tolist() == plain_coreset(tokens.double().numpy(), 30)


@given(n=st.integers(2, 9), kept=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_coreset_covers_at_most_twice_as_badly_as_the_best_choice(n, kept, seed) -> None:
    tokens = some_tokens(n, 3, seed=seed).double()
    kept = min(n, kept)

    def radius(chosen) -> float:
        return float(torch.cdist(tokens, tokens[list(chosen)]).amin(1).max())

    best = min(radius(chosen) for chosen in combinations(range(n), kept))
    assert radius(coreset(tokens, kept).tolist()) <= 2 * best + 1e-6


@given(n=st.integers(1, 40), copies=st.integers(1, 3))
def test_a_coreset_of_all_is_every_token_once_even_among_equal_ones(n, copies) -> None:
    tokens = some_tokens(n, 4).repeat(copies, 1)

    assert sorted(coreset(tokens, n * copies).tolist()) == list(range(n * copies))
