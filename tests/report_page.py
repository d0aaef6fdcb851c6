"""A report of made-up data, open in chromium."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.data import ReportData
from pipeline.report.render import render_report
from tests.report_samples import sample


@pytest.fixture
def page(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    """Give the browser with the sample's report, of which it may not complain."""
    open_report(chromium, tmp_path, sample())
    yield chromium
    assert chromium.get_log("browser") == []


def open_report(chromium: Any, folder: Path, data: ReportData) -> None:
    """Write a report and open it."""
    path = folder / "report.html"
    path.write_text(render_report(data), encoding="utf-8")
    chromium.get(path.as_uri())
