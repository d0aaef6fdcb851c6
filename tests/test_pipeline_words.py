"""Settings as a legend and a title say them."""

import pytest

from pipeline.words import option_words


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("sae.width", 4096, "C = 4096"),
        ("guides.beta", 0.001, "beta = 0.001"),
        ("layer", 5, "layer 5"),
        ("layer", "5+8", "layers 5 and 8"),
        ("layer", "5+8+11", "layers 5, 8 and 11"),
    ],
)
def test_a_setting_is_said_in_words(name, value, said):
    assert option_words(name, value) == said
