"""A report in a real browser: all images by their tiles, print, a narrow phone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.report_page import open_report
from tests.report_samples import sample


def _found(chromium: Any, selector: str) -> list[Any]:
    found: list[Any] = chromium.find_elements("css selector", selector)
    return found


def _wait(chromium: Any) -> None:
    chromium.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 200))")


def test_every_image_has_a_tile_that_enlarges_and_arrow_keys_walk_on(page: Any) -> None:
    assert len(_found(page, ".tile")) == 12
    _found(page, "#order option[value=high]")[0].click()
    scores = [float(one.get_attribute("textContent")) for one in _found(page, ".tile b")]

    _found(page, ".tile")[0].send_keys("\n")
    paths = [_found(page, "#viewer p bdi")[0].text]
    page.switch_to.active_element.send_keys("\ue014")
    paths.append(_found(page, "#viewer p bdi")[0].text)
    page.switch_to.active_element.send_keys("\ue00c")

    assert scores == sorted(scores, reverse=True)
    assert paths == ["screw/test/005.png", "bottle/test/005.png"]
    assert not _found(page, "#viewer")[0].is_displayed()


def test_tiles_follow_the_filters(page: Any) -> None:
    for name, value in (("category", "screw"), ("label", "normal")):
        options = _found(page, f"select[name={name}] option")
        next(one for one in options if one.get_attribute("value") == value).click()

    names = [one.get_attribute("textContent") for one in _found(page, ".tile bdi:first-of-type")]
    assert names == ["screw"] * 3


def test_of_thousands_of_images_few_are_pictures_at_a_time(chromium: Any, tmp_path: Path) -> None:
    data = sample()
    many = [replace(data.images[0], row=row) for row in range(3000)]
    tiles = dict.fromkeys(range(3000), data.tiles[0])

    open_report(chromium, tmp_path, replace(data, images=many, tiles=tiles))

    at_first = len(_found(chromium, ".tile"))
    more = "document.getElementById('more').scrollIntoView({ behavior: 'instant' })"
    for _ in range(20):
        chromium.execute_script(more)
        _wait(chromium)
        if len(_found(chromium, ".tile")) > at_first:
            break
    assert 0 < at_first <= 120
    assert at_first < len(_found(chromium, ".tile")) <= at_first + 300
    assert chromium.get_log("browser") == []


def test_a_table_fits_the_width_of_a_printed_page(page: Any) -> None:
    a4 = {"width": 703, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", a4)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    widths = page.execute_script(
        "return [...document.querySelectorAll('.scroll table')].filter((one) => one.offsetParent)"
        ".map((one) => [one.scrollWidth, one.parentElement.clientWidth])"
    )
    shown = [one for one in _found(page, "#theme, #filters, .enlarge, .tile") if one.is_displayed()]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    assert len(widths) > 2
    assert all(table <= place for table, place in widths)
    assert shown == []


def test_the_mean_is_printed_once_and_no_word_of_what_is_not_printed(page: Any) -> None:
    footer = "return getComputedStyle(document.querySelector('tfoot')).display"
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    printed = page.execute_script(footer)
    lead = _found(page, "#categories .lead")[0].text
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})

    assert printed == "table-row-group"  # a browser repeats a footer on every page
    assert "below" not in lead
    assert "below" in _found(page, "#categories .lead")[0].text


def test_on_a_phone_a_wide_table_says_that_it_goes_on(page: Any) -> None:
    size = {"width": 300, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    hint = _found(page, "#metrics .hint")[0]

    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    _wait(page)
    on_a_phone = hint.is_displayed()
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    _wait(page)

    assert on_a_phone
    assert not hint.is_displayed()
