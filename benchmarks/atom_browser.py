"""A page of 4,096 atoms in chromium: how soon it is there, how it scrolls, what it takes.

    python -m benchmarks.atom_browser [--page FILE.html] [--width 4096] [--rounds 5]

Without `--page` the real samples (`mvtec`, ViT-Tiny at 448 px) are extracted, an SAE is fitted, and
`spg-pipe atoms --sae` makes the page. A round is a new browser, and opens the page by its file's
address. Shown: when the rows stand and when the pictures in sight are decoded, from the start of
the navigation. Scroll: `requestAnimationFrame` while the page moves on by 40 pixels a frame, and
while it jumps to a random place every tenth frame; the rate of an empty page stands beside it.
Memory: of the renderer's process, and of its JavaScript heap. For comparison, all rows at once.
Prints a Markdown table: the median of the rounds.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.layers import processor
from benchmarks.real_samples import BACKBONE, SHARED, command

FLAGS = "--headless=new --no-sandbox --disable-gpu --no-first-run --window-size=1360,900"
SHOWN = """
const done = arguments[0];
const urls = new Set([...document.querySelectorAll(".cut div")]
  .map((cut) => getComputedStyle(cut).backgroundImage.slice(5, -2)));
Promise.all([...urls].map((url) => { const i = new Image(); i.src = url; return i.decode(); }))
  .then(() => requestAnimationFrame(() => done(performance.now())));
"""
ROWS = """
const done = arguments[0];
new PerformanceObserver((seen) => {
  const [first] = seen.getEntriesByName("first-contentful-paint");
  if (first) done(first.startTime);
}).observe({ type: "paint", buffered: true });
"""
SCROLL = """
const [frames, step, jump, done] = arguments;
const times = [];
let at = 0;
function next(now) {
  times.push(now);
  if (times.length > frames) return done(times.slice(1).map((time, i) => time - times[i]));
  const end = document.body.scrollHeight - innerHeight;
  at = jump && times.length % jump === 0 ? Math.random() * end : Math.min(at + step, end);
  scrollTo({ top: at, behavior: "instant" });
  requestAnimationFrame(next);
}
requestAnimationFrame(next);
"""
ALL_ROWS = """
const start = performance.now();
list.replaceChildren(...order.map((at, place) => {
  const row = rowOf(at, place);
  row.style.transform = `translateY(${place * rowHeight}px)`;
  return row;
}));
list.getBoundingClientRect();
return performance.now() - start;
"""


def make_page(folder: Path, width: int) -> Path:
    """Extract, fit and write the page of the real samples."""
    store, page = folder / "store", folder / "sae.html"
    extract = ["extract", "--backbone", BACKBONE, "--image-size", "448", "--thumbnails"]
    extract += ["--weights", str(SHARED / "weights" / "vit_tiny_patch16_224.safetensors")]
    extract += ["--dataset", "mvtec", "--root", str(SHARED / "data" / "mvtec")]
    command(store, *extract)
    fit = ["fit-sae", "--dataset", "mvtec", "--backbone", BACKBONE, "--width", str(width)]
    command(store, *fit, "--k", "32", "--epochs", "3")
    start = time.perf_counter()
    made = command(store, "atoms", "--sae", "latest", "--out", str(page))
    print(f"`atoms --sae`: {time.perf_counter() - start:.1f} s for {made['atoms']} atoms\n")
    return page


def renderer_bytes(driver_pid: int) -> int:
    """Give the proportional memory of the renderers below a chromedriver."""
    parents, renderers = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            pid, stat = int(folder.name), (folder / "stat").read_text()
            parents[pid] = int(stat.rpartition(")")[2].split()[1])
            if b"--type=renderer" in (folder / "cmdline").read_bytes():
                renderers.append(pid)
        except OSError:
            continue  # it has ended
    total = 0
    for pid in renderers:
        above = pid
        while above not in (0, 1, driver_pid):
            above = parents.get(above, 0)
        if above == driver_pid:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            pss = next(line for line in text.splitlines() if line.startswith("Pss:"))
            total += 1024 * int(pss.split()[1])
    return total


def one_round(page: Path) -> dict[str, float]:
    """Open the page in a new browser and measure."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    with tempfile.TemporaryDirectory() as profile:
        for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        service = webdriver.ChromeService(str(shutil.which("chromedriver")))
        driver = webdriver.Chrome(options=options, service=service)
        try:
            driver.set_script_timeout(120)
            return measured(driver, page, service.process.pid)
        finally:
            driver.quit()


def measured(driver: Any, page: Path, driver_pid: int) -> dict[str, float]:
    """Give what one browser shows, milliseconds and megabytes."""
    driver.get("data:text/html,<body style='height:600000px'>")
    empty = driver.execute_async_script(SCROLL, 200, 40, 0)
    driver.get(page.as_uri())
    found = {"pictures shown, ms": driver.execute_async_script(SHOWN)}
    found["rows shown, ms"] = driver.execute_async_script(ROWS)
    found["memory at the start, MB"] = renderer_bytes(driver_pid) / 1e6
    smooth = driver.execute_async_script(SCROLL, 600, 40, 0)
    jumps = driver.execute_async_script(SCROLL, 300, 40, 10)
    for name, frames in (("empty page", empty), ("scrolling", smooth), ("jumping", jumps)):
        found[f"{name}, frames a second"] = 1000 * len(frames) / sum(frames)
        found[f"{name}, slowest of 100 frames, ms"] = sorted(frames)[int(0.99 * len(frames))]
    found["memory after 900 frames, MB"] = renderer_bytes(driver_pid) / 1e6
    driver.execute_cdp_cmd("Performance.enable", {})
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    by_name = {one["name"]: one["value"] for one in metrics}
    found["JavaScript heap, MB"] = by_name["JSHeapUsedSize"] / 1e6
    found["elements"] = driver.execute_script("return document.querySelectorAll('*').length")
    found["all rows at once, built and laid out, ms"] = driver.execute_script(ALL_ROWS)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        sys.exit("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    with tempfile.TemporaryDirectory() as scratch:
        page = options.page or make_page(Path(scratch), options.width)
        load = os.getloadavg()[0]
        rounds = [one_round(page.resolve()) for _ in range(options.rounds)]
    print(f"{processor()}, no GPU, load {load:.1f} at the start of the rounds\n")
    print("| | median | least | most |\n|---|--:|--:|--:|")
    for name in rounds[0]:
        values = [one[name] for one in rounds]
        cells = (statistics.median(values), min(values), max(values))
        print(f"| {name} | {' | '.join(f'{value:.0f}' for value in cells)} |")


if __name__ == "__main__":
    main()
