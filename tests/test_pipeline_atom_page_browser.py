"""The page of atoms in a real browser: rows in sight, order, search, keys, themes, phone, print."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.store import open_store
from manifests.table import Manifest
from pipeline.atoms import browser
from pipeline.atoms.browser import write_page
from pipeline.atoms.cut import CELL, PER_PICTURE
from pipeline.atoms.page_data import page_json
from pipeline.atoms.statistics import statistics
from pipeline.atoms.survey import survey_sae
from pipeline.configs import AtomsConfig
from tests.chromium import BACKGROUND, background_by_scheme
from tests.report_samples import HOSTILE
from tests.small_store import SmallStore
from tests.test_pipeline_atom_page import numbers_of

_SET = """
    const field = document.querySelector(`[name=${arguments[0]}]`);
    field.value = arguments[1];
    const kind = field.tagName === "SELECT" ? "change" : "input";
    field.dispatchEvent(new Event(kind, {bubbles: true}));
"""


@pytest.fixture(scope="module")
def folder(small_store: SmallStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of guides with its pictures inside, and one of the SAE with them beside it."""
    folder = tmp_path_factory.mktemp("atoms ü#1")
    store = open_store(small_store.url, read_only=True)
    config = AtomsConfig(patches=4)
    guides, sae = small_store.guides.id, small_store.sae.id
    write_page(store, config, str(folder / "guides.html"), guides=guides, sae=None)
    with pytest.MonkeyPatch.context() as context:
        context.setattr(browser, "MOST_IN_PAGE", 10)
        write_page(store, config, str(folder / "sae.html"), guides=None, sae=sae)
    return folder


@pytest.fixture(params=["guides", "sae"])
def page(chromium: Any, folder: Path, request: pytest.FixtureRequest) -> Any:
    chromium.get((folder / f"{request.param}.html").as_uri())
    chromium.implicitly_wait(0)
    yield chromium
    assert chromium.get_log("browser") == []


def _atoms(chromium: Any) -> list[int]:
    found: list[int] = chromium.execute_script("""
        return [...document.querySelectorAll(".atom h3")]
            .map((one) => Number(one.firstChild.data.split(" ")[1]))""")
    return found


def _set(chromium: Any, name: str, value: str) -> None:
    chromium.execute_script(_SET, name, value)


def _frame(chromium: Any) -> None:
    chromium.execute_async_script(
        "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
    )


def test_only_rows_in_sight_exist_and_scrolling_brings_the_others(page: Any) -> None:
    n_all = int(page.find_element("id", "shown").text.split()[0])
    seen = set(_atoms(page))
    first = len(seen)
    for _ in range(40):
        page.execute_script("scrollBy({top: innerHeight / 2, behavior: 'instant'})")
        _frame(page)
        seen |= set(_atoms(page))
        assert len(_atoms(page)) <= 16

    assert first < n_all == len(seen)


def test_pictures_load_and_show_what_was_cut(page: Any) -> None:
    found = page.execute_async_script("""
        const done = arguments[0];
        const urls = new Set([...document.querySelectorAll(".cut div")]
            .map((cut) => getComputedStyle(cut).backgroundImage.slice(5, -2)));
        Promise.all([...urls].map((url) => { const i = new Image(); i.src = url;
            return i.decode().then(() => [i.naturalWidth, i.naturalHeight], () => url); }))
            .then(done);
    """)

    assert found
    assert all(size == [4 * CELL, PER_PICTURE * CELL] for size in found)


@pytest.mark.parametrize("key", ["active", "lift", "evenness", "activation", "atom"])
def test_a_sort_orders_all_atoms_and_its_turn_turns_it(page: Any, folder: Path, key: str) -> None:
    name = "guides" if "guides" in page.current_url else "sae"
    numbers = numbers_of(folder / f"{name}.html")
    columns = numbers["columns"]
    values = {
        "lift": numbers["lift"],
        "activation": [one[2] if one else None for one in columns["patches"]],
    }.get(key, columns.get(key))
    # those that are never active, then those without a value, stay last
    known = [
        (value, atom)
        for value, atom, active in zip(values, columns["atom"], columns["active"], strict=True)
        if value is not None and active
    ]

    _set(page, "sort", key)
    first = _atoms(page)[:3]
    page.find_element("id", "turn").click()
    turned = _atoms(page)[:3]

    falling = [atom for _, atom in sorted(known, key=lambda one: (-one[0], one[1]))][:3]
    rising = [atom for _, atom in sorted(known)][:3]
    expected = [rising, falling] if key in ("evenness", "atom") else [falling, rising]
    assert [first, turned] == expected


def test_numbers_and_ranges_are_found_and_what_is_not_says_so(page: Any) -> None:
    every = page.execute_script("return columns.atom.slice().sort((a, b) => a - b)")

    _set(page, "find", f"{every[5]}, {every[0]}-{every[1]}")
    found = sorted(_atoms(page))
    said = page.find_element("id", "shown").text
    _set(page, "find", "99999")

    assert found == [every[0], every[1], every[5]]
    assert said == f"3 of {len(every)} atoms"
    assert _atoms(page) == []
    assert page.find_element("id", "nothing").is_displayed()


def test_a_category_keeps_the_atoms_that_are_mostly_in_it(page: Any) -> None:
    options = page.find_elements("css selector", "optgroup[label=category] option")
    name = options[-1].get_attribute("textContent")

    _set(page, "in", options[-1].get_attribute("value"))

    tops = page.find_elements("css selector", ".of-categories li:first-child bdi")
    assert tops
    assert {one.text for one in tops} == {name}


def test_keys_scroll_the_page_and_a_slash_searches(page: Any) -> None:
    body = page.find_element("css selector", "body")
    body.send_keys("\ue015")  # arrow down
    page.execute_async_script("setTimeout(arguments[0], 300)")
    arrow = page.execute_script("return scrollY")
    body.send_keys("\ue010")  # End
    page.execute_async_script("setTimeout(arguments[0], 700)")
    end = page.execute_script("return innerHeight + scrollY >= document.body.scrollHeight - 2")
    body.send_keys("/")

    assert arrow > 0
    assert end
    assert page.switch_to.active_element.get_attribute("name") == "find"
    assert page.switch_to.active_element.get_attribute("value") == ""


def test_an_atom_opens_with_all_its_shares_and_escape_closes(page: Any) -> None:
    button = page.find_element("css selector", ".atom h3 button")
    button.send_keys("\n")
    viewer = page.find_element("id", "viewer")
    text, cuts = viewer.text, len(viewer.find_elements("css selector", ".cut"))
    page.switch_to.active_element.send_keys("\ue00c")

    assert "active patches" in text
    assert cuts == 4
    assert not viewer.is_displayed()


def test_the_system_theme_is_followed_and_the_button_turns_it(page: Any) -> None:
    colours = set(background_by_scheme(page))
    page.find_element("id", "theme").click()
    turned = page.execute_script(BACKGROUND)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    assert len(colours) == 2
    assert turned in colours


def test_rows_hold_all_of_their_content_from_a_phone_to_a_desk(page: Any) -> None:
    for width in (390, 700, 1100, 1280, 1600):
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        _frame(page)
        sideways = page.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        cut_off = page.execute_script("""
            return [...document.querySelectorAll(".atom")].filter((row) => [...row.children].some(
                (one) => one.getBoundingClientRect().bottom > row.getBoundingClientRect().bottom))
                .length""")
        assert (width, sideways, cut_off) == (width, 0, 0)
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_print_shows_the_first_hundred_in_flow(page: Any) -> None:
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    printed = len(_atoms(page))
    page.execute_script("dispatchEvent(new Event('afterprint'))")

    assert printed == min(100, int(page.find_element("id", "shown").text.split()[0]))
    assert len(_atoms(page)) < printed


def test_hostile_names_run_nothing_and_are_shown_as_they_are(
    small_store: SmallStore, chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [*HOSTILE, "</script><script>hacked=1</script>", "<!--<script>", "a\u2028b", "\udcff"]
    store = open_store(small_store.url, read_only=True)

    def renamed(survey: Any) -> Any:
        found = statistics(survey)
        for classes in (found.categories, found.defects):
            classes.names[:] = [names[at % len(names)] for at in range(len(classes.names))]
        return found

    monkeypatch.setattr(browser, "statistics", renamed)
    page = tmp_path / "a.html"
    write_page(store, AtomsConfig(), str(page), guides=None, sae=small_store.sae.id)
    chromium.get(page.as_uri())

    shown = {one.text for one in chromium.find_elements("css selector", ".of-categories bdi")}
    options = chromium.execute_script(
        "return [...document.querySelectorAll('optgroup[label=category] option')]"
        ".map((one) => one.textContent)"
    )
    assert shown
    assert options == names[: len(options)]
    assert chromium.execute_script("return window.hacked") is None
    assert chromium.get_log("browser") == []


@pytest.mark.parametrize("name", ["</script>", "<!--<script>", "\u2028", "\udcff", "Infinity"])
def test_no_name_ends_the_numbers(small_store: SmallStore, name: str) -> None:
    store = open_store(small_store.url, read_only=True)
    survey = survey_sae(store, small_store.sae.id, AtomsConfig())
    found = statistics(survey)
    found.categories.names[0] = name

    text = page_json(survey, found, np.arange(64), {})

    assert "<" not in text
    assert text.isascii()
    assert name == "Infinity" or name not in text


def test_without_pictures_a_frame_is_the_image_and_its_mark_says_where(
    small_store: SmallStore, chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a cache without pictures, for real, is in test_pipeline_atom_page.py
    monkeypatch.setattr(Manifest, "has_thumbnails", property(lambda _: False))
    page, store = tmp_path / "a.html", open_store(small_store.url, read_only=True)
    write_page(store, AtomsConfig(), str(page), guides=None, sae=small_store.sae.id)
    numbers = numbers_of(page)
    chromium.get(page.as_uri())

    mark = "return document.querySelector('.cut i').style"
    left, top = (float(chromium.execute_script(f"{mark}.{one}")[:-1]) for one in ("left", "top"))

    rows, cols = numbers["grid"]
    row, col = divmod(numbers["columns"]["patches"][0][1], cols)
    assert (left, top) == pytest.approx((100 * col / cols, 100 * row / rows), abs=1e-3)
    assert chromium.get_log("browser") == []


def test_the_page_says_that_it_needs_its_script(chromium: Any, folder: Path) -> None:
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chromium.get((folder / "sae.html").as_uri())
        text = chromium.find_element("css selector", "main").text
        shown = chromium.find_element("id", "finder").is_displayed()
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    assert "This page needs its script" in text
    assert not shown
