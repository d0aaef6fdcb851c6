"""What people call normal parts, masks and labels."""

from typing import Any

import pytest

from manifests.words import is_normal, label_of, mask_stems, without_mask_word


@pytest.mark.parametrize(
    ("folder", "rest"),
    [
        ("mask", ""),
        ("GT", ""),
        ("Ground Truth", ""),
        ("gt_mask", ""),
        ("mask_gt", ""),
        ("labels", ""),
        ("crack_mask", "crack"),
        ("broken_large_masks", "broken_large"),
        ("mask-crack", "crack"),
        ("ground_truth_crack", "crack"),
        ("missing_label", None),
        ("masked", None),
        ("ngt", None),
        ("unmasked_a", None),
        ("", None),
    ],
)
def test_a_folder_of_masks_is_known_by_its_name(folder: str, rest: str | None) -> None:
    assert without_mask_word(folder) == rest


@pytest.mark.parametrize(
    ("stem", "stems"),
    [
        ("000", ["000"]),
        ("000_mask", ["000_mask", "000"]),
        ("Part5_label", ["Part5_label", "Part5"]),
        ("20001_GT", ["20001_GT", "20001"]),
        ("mask_7", ["mask_7", "7"]),
        ("_mask", ["_mask"]),
        ("mask_", ["mask_"]),
        ("000mask", ["000mask"]),
    ],
)
def test_a_mask_may_have_its_images_stem_and_more(stem: str, stems: list[str]) -> None:
    assert mask_stems(stem) == stems


@pytest.mark.parametrize("word", ["good", "OK", "Defect-Free", "no", "non defective", "Negative"])
def test_words_for_normal(word: str) -> None:
    assert is_normal(word)
    assert not is_normal(word, ["gut"])
    assert is_normal("GUT", ["gut"])


@pytest.mark.parametrize("word", ["bad", "NG", "yes", "crack", "", "ungood", "nok", "goods"])
def test_words_that_are_not_normal(word: str) -> None:
    assert not is_normal(word)


NORMAL: list[Any] = [0, 0.0, False, "0", " 0 ", "0.0", "false", "Good", "no", "Label.Good"]
NORMAL += ["LabelName.NORMAL", "DirType.NORMAL_TEST"]
ANOMALOUS: list[Any] = [1, 1.0, True, "1", "1.0", "TRUE", "Bad", "yes", "KO", "Defective"]
ANOMALOUS += ["LabelName.ABNORMAL", "anomalous"]
NEITHER: list[Any] = [2, -1, 0.5, float("nan"), float("inf"), 10**400, "2", "", None, [0], {}]
NEITHER += ["maybe", "1e999", "nan", "\ud800"]


@pytest.mark.parametrize(("values", "label"), [(NORMAL, 0), (ANOMALOUS, 1), (NEITHER, None)])
def test_a_label_is_said_in_many_ways(values: list[Any], label: int | None) -> None:
    assert [label_of(value) for value in values] == [label] * len(values)
