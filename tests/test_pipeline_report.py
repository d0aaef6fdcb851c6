"""The report: what it draws, what it leaves out, what it never lets through, and how it behaves."""

import base64
import hashlib
import io
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.report.charts import _thin, histogram, line_chart
from pipeline.report.data import (
    Atom,
    AtomPatch,
    CategoryCurves,
    Curve,
    GalleryItem,
    ImageRow,
    LinePlot,
    MetricRow,
    ReportData,
    Sparsity,
    SparsityRow,
    TauCurve,
    metric_rows,
)
from pipeline.report.gallery import Pick, select_gallery
from pipeline.report.pictures import MAX_SIDE, heatmap_picture, mask_picture, thumbnail_picture
from pipeline.report.render import render_report
from spg_core.errors import ConfigError, CorruptStore, MetricError

HOSTILE = (
    "</script><script>window.hacked=1</script>",
    '"><img src=x onerror="window.hacked=1">',
    "javascript:window.hacked=1",
    "' onmouseover='window.hacked=1",
    "{{ 7 * 7 }}{% raw %}",
    "</style><!--",
)


# --- samples --------------------------------------------------------------------------------------


def jpeg(width: int = 24, height: int = 16) -> bytes:
    ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(ramp).save(stream, "JPEG")
    return stream.getvalue()


def sample(names: tuple[str, str] = ("bottle", "screw"), defect: str = "crack") -> ReportData:
    """Build a report with every part, two categories of six images, and pictures 24 x 16."""
    images = [
        ImageRow(
            row=6 * c + i,
            category=name,
            defect=defect if i % 2 else "good",
            label=i % 2,
            score=0.1 + 0.1 * i + 0.01 * c,
            image_path=f"{name}/test/{i:03d}.png",
        )
        for c, name in enumerate(names)
        for i in range(6)
    ]
    scores = np.array([image.score for image in images])
    labels = np.array([image.label for image in images])
    picks = select_gallery(scores, labels, [image.category for image in images])
    mask = np.zeros((16, 24), np.uint8)
    mask[4:9, 5:11] = 1
    gallery = [
        GalleryItem(
            image=images[pick.row],
            rank=pick.rank,
            anomaly_map=np.full((16, 24), images[pick.row].score, np.float32),
            thumbnail=jpeg(),
            mask=mask if images[pick.row].label else None,
        )
        for pick in picks
    ]
    line = Curve(x=[0.0, 0.1, 1.0], y=[0.0, 0.8, 1.0])
    patch = AtomPatch(
        image_path=images[1].image_path,
        category=names[0],
        defect=defect,
        activation=3.0,
        heatmap=np.array([[0, 1, 0], [0, 3, 0]], np.float32),
        thumbnail=jpeg(),
        box=(1 / 3, 0.5, 1 / 3, 0.5),
    )
    return ReportData(
        title=f"{names[0]} and {names[1]}",
        run={"command": f"spg-pipe score --dataset {names[0]}", "seed": "111"},
        mean=MetricRow(values={"image_auroc": 0.75, "pixel_aupro": 0.5}),
        categories={
            names[0]: MetricRow(values={"image_auroc": 0.75, "pixel_aupro": 0.9}),
            names[1]: MetricRow(
                values={"image_auroc": None, "pixel_aupro": 0.1}, reason=f"one class, {defect}"
            ),
        },
        images=images,
        gallery=gallery,
        controls={f"{names[0]} none": MetricRow(values={"image_auroc": 0.6, "pixel_aupro": 0.4})},
        curves={name: CategoryCurves(image_roc=line, pixel_roc=line, pro=line) for name in names},
        tau_curve=TauCurve(tau=[0.01, 1, 100], image_auroc=[0.9, 0.8, 0.7], image_ap=[1, 1, 0.5]),
        sparsity=Sparsity(
            n_latents=64,
            rows=[SparsityRow(guide="anomaly", parameters="EMA", nonzero=16, l1=2.5)],
            note=f"the EMA is dense, {defect}",
        ),
        training=[LinePlot(title=defect, x_label="step", y_label="loss", lines={names[0]: line})],
        atoms=[
            Atom(
                index=7,
                guide="anomaly",
                coefficient=0.25,
                patches=[patch],
                category_spread={names[0]: 0.5, names[1]: 0.5},
                defect_spread={defect: 1.0},
            )
        ],
    )


def bare(data: ReportData) -> ReportData:
    """Keep only what every report has."""
    return ReportData(
        title=data.title, run={}, mean=data.mean, categories=data.categories, images=data.images
    )


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


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


# --- pictures: one scale --------------------------------------------------------------------------


def test_a_value_of_one_half_takes_the_middle_colour_of_inferno() -> None:
    picture = heatmap_picture(np.full((2, 3), 0.5, np.float32), top=1.0)

    expected = matplotlib.colormaps["inferno"](128, bytes=True)[:3]
    assert decoded(picture.uri).convert("RGB").getpixel((0, 0)) == tuple(expected)
    assert (picture.width, picture.height) == (3, 2)


def test_the_same_value_has_the_same_colour_in_maps_of_different_maxima() -> None:
    faint = heatmap_picture(np.array([[0.2, 0.05]], np.float32), top=1.0)
    strong = heatmap_picture(np.array([[0.2, 0.95]], np.float32), top=1.0)

    faint_pixels, strong_pixels = (
        np.asarray(decoded(p.uri).convert("RGB")) for p in (faint, strong)
    )
    assert (faint_pixels[0, 0] == strong_pixels[0, 0]).all()
    assert int(faint_pixels.sum()) < int(strong_pixels.sum())


def test_values_above_a_lowered_top_take_the_last_colour() -> None:
    picture = heatmap_picture(np.array([[0.5, 0.9]], np.float32), top=0.5)

    assert np.asarray(decoded(picture.uri)).tolist() == [[255, 255]]


def test_large_maps_shrink_by_averaging_and_keep_their_shape() -> None:
    values = np.tile(np.array([0.0, 0.5], np.float32), (MAX_SIDE, MAX_SIDE))

    picture = heatmap_picture(values, top=1.0)

    assert (picture.width, picture.height) == (MAX_SIDE, MAX_SIDE // 2)
    assert np.unique(np.asarray(decoded(picture.uri))).tolist() == [64]


def test_a_mask_of_one_pixel_survives_shrinking() -> None:
    mask = np.zeros((900, 700), np.uint8)
    mask[450, 350] = 1

    assert np.asarray(decoded(mask_picture(mask).uri)).sum() >= 1


def test_a_thumbnail_that_is_no_jpeg_is_refused_by_name() -> None:
    with pytest.raises(CorruptStore, match="the thumbnail of image 3 is no JPEG"):
        thumbnail_picture(b"<svg onload='alert(1)'>", "image 3")


def test_a_huge_thumbnail_is_refused_with_its_size() -> None:
    with pytest.raises(CorruptStore, match="5000 x 1, expected at most 4096"):
        thumbnail_picture(jpeg(5000, 1), "image 3")


# --- gallery --------------------------------------------------------------------------------------


def test_worst_is_the_lowest_anomalous_and_the_highest_normal_score() -> None:
    scores = np.array([0.9, 0.1, 0.5, 0.2, 0.8, 0.4])
    labels = np.array([1, 1, 1, 0, 0, 0])

    picks = select_gallery(scores, labels, ["a"] * 6)

    assert picks == [
        Pick(0, "best"), Pick(2, "median"), Pick(1, "worst"),
        Pick(3, "best"), Pick(5, "median"), Pick(4, "worst"),
    ]  # fmt: skip


def test_a_lone_image_is_the_median_and_a_pair_is_best_and_worst() -> None:
    picks = select_gallery(np.array([0.1, 0.7, 0.6]), np.array([0, 1, 1]), ["a"] * 3)

    assert picks == [Pick(1, "best"), Pick(2, "worst"), Pick(0, "median")]


scored = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 1), st.sampled_from(["a", "b"])), max_size=40
)


@given(images=scored, sixths=st.integers(1, 3))
def test_a_gallery_takes_each_image_once_and_as_many_as_there_are(
    images: list[tuple[int, int, str]], sixths: int
) -> None:
    scores = np.array([s for s, _, _ in images], float)
    labels = np.array([x for _, x, _ in images], int)
    names = [c for _, _, c in images]

    picks = select_gallery(scores, labels, names, 6 * sixths)

    rows = [pick.row for pick in picks]
    assert len(set(rows)) == len(rows)
    for name in ("a", "b"):
        for label in (0, 1):
            group = [i for i, image in enumerate(images) if image[1:] == (label, name)]
            shown = [pick for pick in picks if pick.row in group]
            assert len(shown) == min(len(group), 3 * sixths)
            worst = [scores[pick.row] for pick in shown if pick.rank == "worst"]
            if worst:
                extreme = min if label else max
                assert worst[0] == extreme(scores[group])
    assert picks == select_gallery(np.exp(scores), labels, names, 6 * sixths)


@pytest.mark.parametrize("per_category", [0, 5, 7])
def test_a_gallery_that_cannot_be_split_evenly_is_refused(per_category: int) -> None:
    with pytest.raises(ConfigError, match="multiple of 6"):
        select_gallery(np.array([0.1]), np.array([0]), ["a"], per_category)


def test_scores_that_are_not_finite_or_not_one_an_image_are_refused() -> None:
    with pytest.raises(MetricError, match="image 1 has the score nan"):
        select_gallery(np.array([0.1, np.nan]), np.array([0, 1]), ["a", "a"])
    with pytest.raises(MetricError, match="2 scores, 1 labels and 2 categories"):
        select_gallery(np.array([0.1, 0.2]), np.array([0]), ["a", "a"])


# --- charts ---------------------------------------------------------------------------------------


def test_a_line_runs_from_corner_to_corner_of_its_box() -> None:
    chart = line_chart("t", "x", "y", {"a": Curve(x=[0, 1], y=[0, 1])})

    assert chart is not None
    assert chart.paths[0].d == f"M{chart.left:g} {chart.bottom:g}L{chart.right:g} {chart.top:g}"
    assert [tick.label for tick in chart.x_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


def test_a_log_axis_has_powers_of_ten_at_equal_steps() -> None:
    chart = line_chart("t", "x", "y", {"a": Curve(x=[0.01, 1, 100], y=[1, 2, 3])}, log_x=True)

    assert chart is not None
    assert [tick.label for tick in chart.x_ticks] == ["0.01", "0.1", "1", "10", "100"]
    assert np.ptp(np.diff([tick.at for tick in chart.x_ticks])) < 0.2


def test_bars_of_a_histogram_are_shares_of_their_own_group() -> None:
    groups = {"normal": np.array([0.0, 0.0, 0.0]), "anomalous": np.array([1.0])}

    chart = histogram("t", "x", groups, x_range=(0.0, 1.0))

    assert chart is not None
    for path in chart.paths:
        heights = [float(y) for y in re.findall(r" ([\d.]+)", path.d)]
        assert min(heights) == chart.top
    assert [path.name for path in chart.paths] == ["normal (3)", "anomalous (1)"]


def test_what_cannot_be_drawn_is_left_out() -> None:
    lost = Curve(x=[0, 1, 2], y=[np.nan, 1, np.inf])

    assert line_chart("t", "x", "y", {"a": lost}) is None
    assert histogram("t", "x", {"normal": np.array([])}, x_range=(0.0, 1.0)) is None


def test_a_constant_line_is_drawn_in_the_middle() -> None:
    chart = line_chart("t", "x", "y", {"a": Curve(x=[1, 2, 3], y=[5, 5, 5])})

    assert chart is not None
    middle = (chart.top + chart.bottom) / 2
    assert chart.paths[0].d == f"M{chart.left:g} {middle:g}L{chart.right:g} {middle:g}"


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 200)), min_size=2, max_size=60))
def test_thinning_moves_a_curve_by_less_than_anyone_sees(points: list[tuple[int, int]]) -> None:
    full = np.array(sorted(points), dtype=float)

    thin = _thin(full)

    assert (thin[0] == full[0]).all()
    assert (thin[-1] == full[-1]).all()
    assert max(_distance_to_path(point, thin) for point in full) <= 0.15 + 1e-9


def _distance_to_path(point: Any, path: Any) -> float:
    starts, steps = path[:-1], np.diff(path, axis=0)
    lengths = np.maximum((steps**2).sum(1), 1e-12)
    along = np.clip(((point - starts) * steps).sum(1) / lengths, 0, 1)
    return float(np.linalg.norm(starts + along[:, None] * steps - point, axis=1).min())


def test_a_curve_over_a_million_thresholds_stays_small() -> None:
    x = np.linspace(0, 1, 1_000_001)

    chart = line_chart("t", "x", "y", {"a": Curve(x=x, y=1 - (1 - x) ** 9)})

    assert chart is not None
    assert len(chart.paths[0].d) < 2_000


# --- the page -------------------------------------------------------------------------------------


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


def test_metrics_json_is_read_with_its_reasons() -> None:
    mean, categories = metric_rows(
        {
            "mean": {"image_auroc": 0.5, "reason": None},
            "categories": {
                "a": {"image_auroc": None, "pixel_ap": 1, "image_reason": "one class", "note": "x"}
            },
        }
    )

    assert mean == MetricRow(values={"image_auroc": 0.5})
    assert categories == {
        "a": MetricRow(values={"image_auroc": None, "pixel_ap": 1.0}, reason="one class")
    }


# --- in a browser ---------------------------------------------------------------------------------

_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the package selenium")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    profile = tmp_path_factory.mktemp("profile")
    for flag in [*_FLAGS.split(), f"--user-data-dir={profile}", "--window-size=1280,900"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield session
    session.quit()


@pytest.fixture
def page(chromium: Any, tmp_path: Path) -> Any:
    _open(chromium, tmp_path, sample())
    yield chromium
    assert chromium.get_log("browser") == []


def _open(chromium: Any, folder: Path, data: ReportData) -> None:
    path = folder / "report.html"
    path.write_text(render_report(data), encoding="utf-8")
    chromium.get(path.as_uri())


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


def test_the_button_turns_the_theme_and_tells_its_state(page: Any) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    button = page.find_element("id", "theme")
    before, pressed = page.execute_script(background), button.get_attribute("aria-pressed")

    button.click()

    assert page.execute_script(background) != before
    assert button.get_attribute("aria-pressed") != pressed


def test_the_system_theme_is_followed(page: Any) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    colours = set()
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        colours.add(page.execute_script(background))
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
    _open(chromium, tmp_path, sample((HOSTILE[0], HOSTILE[1]), HOSTILE[3]))

    _choose(chromium, "category", HOSTILE[1])

    assert _shown(chromium, "article.card") == 6
    assert chromium.execute_script("return window.hacked") is None
    assert chromium.get_log("browser") == []


def test_the_page_reads_without_its_script(chromium: Any, tmp_path: Path) -> None:
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        _open(chromium, tmp_path, sample())
        controls = _shown(chromium, "button, #filters")
        cards = _shown(chromium, "article.card")
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    assert controls == 0
    assert cards == 12
