"""Write a report: one HTML page that needs nothing from outside itself.

What comes from data (names, paths, run card) is foreign: jinja2 escapes all of it, nothing of it
becomes a link, a style or a script, and the page's own policy lets the browser run only the one
script and the one style written here, and fetch nothing.
"""

import base64
import hashlib
from functools import partial
from importlib import resources

import jinja2
from markupsafe import Markup

from pipeline.metrics import percent
from pipeline.report.data import ReportData
from pipeline.report.pictures import draw_layers, scale_picture
from pipeline.report.view import (
    LABELS,
    category_views,
    charts_of,
    metric_names,
    perplexity,
)

_TEMPLATES = resources.files("pipeline.report") / "templates"


def render_report(data: ReportData) -> str:
    """Give the page as text, to be written as UTF-8.

    Raises:
        CorruptStore: A thumbnail is no JPEG.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": partial(percent, none="–"), "perplexity": perplexity}
    environment.globals["draw_layers"] = draw_layers
    style, script = _template("report.css"), _template("report.js")
    page = environment.get_template("report.html").render(
        data=data,
        # Ours, not data: the only text that goes in as it is.
        style=Markup(style),
        script=Markup(script),
        policy=_content_policy(style, script),
        metrics=metric_names(data),
        labels=LABELS,
        categories=category_views(data),
        defects=sorted({image.defect for image in data.images}),
        scale=scale_picture(),
        tau=charts_of([data.tau_curve] if data.tau_curve else []),
        training=charts_of(data.training),
    )
    # A file name that is not UTF-8 reaches us with lone surrogates, which UTF-8 cannot hold.
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _content_policy(style: str, script: str) -> str:
    """Allow embedded pictures, this style and this script by their digests, and nothing else."""
    style_digest, script_digest = (
        base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
        for text in (style, script)
    )
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style_digest}'; "
        f"script-src 'sha256-{script_digest}'; base-uri 'none'; form-action 'none'"
    )
