"""A report in a real browser: sorting, filters, themes, pictures, a phone, hostile names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.data import CategoryCurves, MetricRow
from pipeline.tables.metrics import METRICS
from tests.chromium import background_by_scheme
from tests.report_page import open_report
from tests.report_samples import HOSTILE, sample


def _texts(chromium: Any, selector: str) -> list[str]:
    return [element.text for element in chromium.find_elements("css selector", selector)]


def _shown(chromium: Any, selector: str) -> int:
    return sum(e.is_displayed() for e in chromium.find_elements("css selector", selector))


def _choose(chromium: Any, name: str, value: str) -> None:
    select = chromium.find_element("css selector", f"select[name={name}]")
    options = select.find_elements("css selector", "option")
    next(option for option in options if option.get_attribute("value") == value).click()


def test_a_head_sorts_its_table_both_ways_and_says_so(page: Any) -> None:
    head = page.find_elements("css selector", "#metrics table.sortable th")[2]
    button = head.find_element("css selector", "button")

    button.send_keys("\n")
    ascending = _texts(page, "#metrics table.sortable tbody th")[:2]
    states = [head.get_attribute("aria-sort")]
    button.send_keys("\n")
    descending = _texts(page, "#metrics table.sortable tbody th")[:2]
    states.append(head.get_attribute("aria-sort"))

    assert ascending == ["screw", "bottle"]
    assert descending == ["bottle", "screw"]
    assert states == ["ascending", "descending"]


def test_a_missing_value_stays_last_in_both_orders(page: Any) -> None:
    button = page.find_elements("css selector", "#metrics table.sortable th button")[1]

    for _ in range(2):
        button.click()
        assert _texts(page, "#metrics table.sortable tbody th")[:2] == ["bottle", "screw"]


def test_filters_hide_what_does_not_match_and_reset_brings_it_back(page: Any) -> None:
    _choose(page, "category", "screw")
    _choose(page, "label", "anomalous")

    assert _shown(page, "article.card") == 3
    assert _shown(page, "section.category") == 1
    assert page.find_element("id", "shown").text == "3 of 12 pictured images"

    page.find_element("css selector", "#filters button[type=reset]").click()

    assert page.execute_async_script("setTimeout(arguments[0])") is None
    assert _shown(page, "article.card") == 12


def test_filters_that_match_nothing_say_so(page: Any) -> None:
    _choose(page, "defect", "good")
    _choose(page, "label", "anomalous")

    assert _shown(page, "article.card") == 0
    assert page.find_element("id", "nothing").is_displayed()


def test_the_button_turns_the_theme_and_says_what_it_will_do(page: Any) -> None:
    scheme = "return getComputedStyle(document.documentElement).colorScheme"
    button = page.find_element("id", "theme")
    said, turned = [], []

    for _ in range(2):
        said.append(button.text)
        button.click()
        turned.append(page.execute_script(scheme))

    assert sorted(said) == ["Dark theme", "Light theme"]
    assert turned == [text.partition(" ")[0].lower() for text in said]


def test_the_system_theme_is_followed(page: Any) -> None:
    colours = set(background_by_scheme(page))
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    assert len(colours) == 2


def test_an_image_enlarges_and_arrow_keys_walk_on(page: Any) -> None:
    viewer = page.find_element("id", "viewer")
    first = page.find_element("css selector", "button.enlarge")
    first.send_keys("\n")
    paths = [viewer.find_element("css selector", "footer bdi").text]

    page.switch_to.active_element.send_keys("\ue014")
    paths.append(viewer.find_element("css selector", "footer bdi").text)
    page.switch_to.active_element.send_keys("\ue00c")

    assert paths == _texts(page, "article.card footer bdi")[:2]
    assert not viewer.is_displayed()


def test_the_strength_of_the_heatmap_follows_its_slider(page: Any) -> None:
    opacity = "return getComputedStyle(document.querySelector('.card .heat')).opacity"
    slider = page.find_element("id", "strength")

    slider.send_keys("\ue010")

    assert page.execute_script(opacity) == "1"


def test_every_picture_decodes_and_every_reference_resolves(page: Any) -> None:
    broken = page.execute_async_script("""
        const done = arguments[0];
        const uris = [...document.querySelectorAll("image")].map((i) => i.getAttribute("href"))
            .concat([...document.images].map((i) => i.src));
        Promise.all(uris.map((uri) => { const i = new Image(); i.src = uri;
            return i.decode().then(() => null, () => uri.slice(0, 60)); }))
            .then((found) => done(found.filter(Boolean).concat(
                [...document.querySelectorAll("use, a[href^='#']")]
                    .map((u) => u.getAttribute("href"))
                    .filter((h) => !document.getElementById(h.slice(1))))));
    """)

    assert broken == []


def test_a_phone_needs_no_sideways_scrolling(page: Any) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    width = page.execute_script("return document.documentElement.scrollWidth")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    assert width == 390


def test_hostile_names_run_nothing_and_can_still_be_filtered(chromium: Any, tmp_path: Path) -> None:
    open_report(chromium, tmp_path, sample((HOSTILE[0], HOSTILE[1]), HOSTILE[3]))

    _choose(chromium, "category", HOSTILE[1])

    assert _shown(chromium, "article.card") == 6
    assert chromium.execute_script("return window.hacked") is None
    assert chromium.get_log("browser") == []


def test_the_page_reads_without_its_script(chromium: Any, tmp_path: Path) -> None:
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        open_report(chromium, tmp_path, sample())
        controls = _shown(chromium, "button, #filters")
        cards = _shown(chromium, "article.card")
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    assert controls == 0
    assert cards == 12


def _rows_of(chromium: Any, selector: str) -> list[int]:
    """Give how many elements stand in each row, from top to bottom."""
    tops = [round(one.rect["y"]) for one in chromium.find_elements("css selector", selector)]
    return [tops.count(top) for top in sorted(set(tops))]


@pytest.mark.parametrize(("width", "rows"), [(1200, [4]), (1000, [2, 2]), (500, [1, 1, 1, 1])])
def test_the_charts_of_a_category_are_never_three_and_one(
    page: Any, width: int, rows: list[int]
) -> None:
    page.set_window_size(width, 900)
    try:
        assert _rows_of(page, "#category-1 .chart") == rows
    finally:
        page.set_window_size(1280, 900)


def test_a_very_long_name_of_a_category_leaves_the_numbers_in_view(
    chromium: Any, tmp_path: Path
) -> None:
    data = sample(names=("long" * 60, "screw"))
    metrics = {name: MetricRow(values=dict.fromkeys(METRICS, 0.5)) for name in data.categories}
    open_report(chromium, tmp_path, replace(data, categories=metrics))

    scroll = chromium.find_element("css selector", "#metrics .scroll")

    assert scroll.get_property("scrollWidth") <= scroll.get_property("clientWidth")


def test_large_numbers_and_small_ones_stand_in_rows_of_their_own(
    chromium: Any, tmp_path: Path
) -> None:
    pixel = {"pixel_auroc": 0.5, "pixel_ap": 0.5, "pixel_aupro": 0.5, "pixel_f1max": 0.5}
    open_report(chromium, tmp_path, replace(sample(), mean=MetricRow(values=pixel)))

    assert _texts(chromium, ".headline.main dt") == ["Pixel AUROC", "Pixel AUPRO"]
    assert _texts(chromium, ".headline.minor dt") == ["Pixel AP", "Pixel F1-max"]
    assert _rows_of(chromium, ".headline > div") == [2, 2]


def test_a_curve_that_stands_alone_says_what_it_is_of(chromium: Any, tmp_path: Path) -> None:
    data = sample()
    line = data.curves["bottle"].pixel_roc
    only = {"bottle": CategoryCurves(pixel_roc=line, pixel_pr=line)}
    open_report(chromium, tmp_path, replace(data, curves=only))

    said = _texts(chromium, "#category-1 .chart")[1:]

    assert [text.splitlines()[-1].partition(",")[0] for text in said] == ["pixel", "pixel"]


def test_a_reason_that_categories_share_is_said_once(chromium: Any, tmp_path: Path) -> None:
    data = sample()
    missing = MetricRow(values={"image_auroc": None}, reason="no image is anomalous")
    categories = dict.fromkeys(data.categories, missing)
    open_report(chromium, tmp_path, replace(data, categories=categories))

    assert "bottle, screw: no image is anomalous" in _texts(chromium, "#metrics > .note")


def test_a_path_reads_from_left_to_right_whatever_its_letters(
    chromium: Any, tmp_path: Path
) -> None:
    data = sample()
    images = [replace(one, image_path=f"עברית/{one.row}.png") for one in data.images]
    open_report(chromium, tmp_path, replace(data, images=images, gallery=()))

    cells = chromium.find_elements("css selector", "td.path bdi")

    assert len(cells) == len(images)
    assert {
        chromium.execute_script("return getComputedStyle(arguments[0]).direction", one)
        for one in cells
    } == {"ltr"}
