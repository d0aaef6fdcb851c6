"""The page of a report: what it says, what it leaves out, what it never lets through."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts.terms import Metrics
from pipeline.report.data import (
    GalleryItem,
    MetricRow,
    metric_row,
)
from pipeline.report.render import render_report
from pipeline.tables.metrics import METRICS
from spg_core.errors import MetricError
from tests.report_samples import HOSTILE, bare, sample


class Elements(HTMLParser):
    """What a browser would find: elements with their attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def ids(self) -> set[str | None]:
        return {attributes["id"] for _, attributes in self.found if "id" in attributes}


def test_a_page_with_everything_has_every_section() -> None:
    page = Elements(render_report(sample()))

    sections = {"run", "metrics", "controls", "categories", "tau", "training", "sparsity", "atoms"}
    assert sections <= page.ids()
    cards = [a for tag, a in page.found if tag == "article" and a.get("class") == "card"]
    assert len(cards) == 12
    assert {card["data-rank"] for card in cards} == {"best", "median", "worst"}


def test_parts_that_are_not_given_are_left_out() -> None:
    page = Elements(render_report(bare(sample())))

    absent = {"run", "controls", "tau", "training", "sparsity", "atoms", "strength"}
    assert not absent & page.ids()
    assert not [tag for tag, a in page.found if a.get("class") in ("card", "gallery", "scale")]
    links = {a["href"] for tag, a in page.found if tag == "a"}
    assert {str(link)[1:] for link in links} <= {str(i) for i in page.ids()}


def test_metrics_read_in_percent_and_a_missing_one_says_why() -> None:
    page = Elements(render_report(sample()))

    assert "75.0" in page.text
    assert "–" in page.text
    assert "screw: one class, crack" in page.text.replace("\n", "")


def test_a_lowered_scale_is_stated() -> None:
    page = Elements(render_report(replace(sample(), scale_top=0.5)))

    assert "0.5 and above" in page.text
    assert "it ends below 1" in page.text


def test_without_thumbnails_masks_and_heatmaps_stand_alone_and_the_page_says_how_to_get_them() -> (
    None
):
    data = sample()
    plain = replace(
        data, gallery=[replace(item, thumbnail=None) for item in data.gallery], atoms=()
    )

    page = render_report(plain)

    assert "spg-pipe extract --thumbnails" in page
    assert "data:image/jpeg" not in page
    assert "spg-pipe extract --thumbnails" not in render_report(data)


def test_hostile_names_change_no_element_and_no_attribute_of_the_page() -> None:
    harmless = Elements(render_report(sample(("first", "second"), "crack")))

    for first in HOSTILE:
        page = Elements(render_report(sample((first, HOSTILE[0] + "b"), HOSTILE[1])))

        shape = [(tag, sorted(attributes)) for tag, attributes in page.found]
        assert shape == [(tag, sorted(attributes)) for tag, attributes in harmless.found]
        assert first in page.text


def test_nothing_in_the_page_leads_outside() -> None:
    text = render_report(sample((HOSTILE[2], "http://example.org/x.png"), HOSTILE[2]))

    for _, attributes in Elements(text).found:
        for name in ("href", "src", "action", "srcset", "xlink:href", "data"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:image/", "data:,"))
    style = re.findall(r"<style>(.*?)</style>", text, re.S)
    assert len(style) == 1
    assert "url(" not in style[0]
    assert "@import" not in style[0]


def test_the_policy_allows_exactly_the_style_and_the_script_of_the_page() -> None:
    text = render_report(sample())

    policy = next(
        str(a["content"])
        for _, a in Elements(text).found
        if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag, source in (("style", "style-src"), ("script", "script-src")):
        content = text.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}'" in policy
    assert " style=" not in text
    assert not re.search(r"<[^>]* on\w+=", text)


def test_a_file_name_that_is_not_utf8_can_still_be_written() -> None:
    data = sample()
    broken = replace(data.images[0], image_path="caf\udce9.png")

    page = render_report(replace(data, images=[broken, *data.images[1:]]))

    assert rb"caf\udce9.png" in page.encode("utf-8")


def test_the_same_data_gives_the_same_page() -> None:
    assert render_report(sample()) == render_report(sample())


@pytest.mark.parametrize("value", [np.nan, 1.5, -0.1, np.inf])
def test_a_map_that_holds_no_probabilities_is_refused(value: float) -> None:
    image = sample().images[0]

    with pytest.raises(
        MetricError, match=r"image 0: its anomaly map spans .* finite probabilities"
    ):
        GalleryItem(image=image, rank="best", anomaly_map=np.full((2, 2), value, np.float32))


def test_a_scale_that_ends_above_one_is_refused() -> None:
    with pytest.raises(MetricError, match=r"the heatmap scale ends at 2\.0"):
        replace(sample(), scale_top=2.0)


def test_activations_below_zero_are_refused() -> None:
    patch = sample().atoms[0].patches[0]

    with pytest.raises(MetricError, match="finite numbers >= 0"):
        replace(patch, heatmap=np.array([[-1.0]], np.float32))


def test_stored_metrics_are_shown_with_their_reasons() -> None:
    none: dict[str, Any] = dict.fromkeys(METRICS)
    mean = Metrics(**none | {"image_auroc": 0.5})
    category = Metrics(**none | {"pixel_ap": 1.0}, image_reason="one class")

    assert metric_row(mean) == MetricRow(values=none | {"image_auroc": 0.5})
    assert metric_row(category) == MetricRow(values=none | {"pixel_ap": 1.0}, reason="one class")


def test_every_element_is_closed_where_it_was_opened() -> None:
    void = {"meta", "link", "img", "input", "path", "rect", "image", "use"}
    opened: list[str] = []

    class Nesting(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in void:
                opened.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            """Of SVG: closes itself."""

        def handle_endtag(self, tag: str) -> None:
            # a browser closes these itself
            while opened[-1] != tag and opened[-1] in ("option", "li"):
                opened.pop()
            assert opened.pop() == tag

    for page in (sample(), bare(sample())):
        Nesting().feed(render_report(page))

        assert opened == []
