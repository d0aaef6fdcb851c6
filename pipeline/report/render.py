"""Write a report: one HTML page that needs nothing from outside itself.

Names, paths and the run card are foreign; `pipeline.report.page` says how they stay text.
"""

from functools import partial

from markupsafe import Markup

from pipeline.report.data import ReportData
from pipeline.report.page import as_utf8, page_environment, page_parts
from pipeline.report.pictures import draw_layers, heatmap_picture, scale_picture
from pipeline.report.view import (
    LABELS,
    category_views,
    charts_of,
    headline,
    metric_names,
    perplexity,
    tiles_json,
)
from pipeline.tables.metrics import names_by_reason, percent
from pipeline.terminal.printable import counted


def render_report(data: ReportData) -> str:
    """Give the page as text, to be written as UTF-8.

    Raises:
        CorruptStore: A thumbnail is no JPEG.
    """
    environment = page_environment()
    environment.filters |= {"percent": partial(percent, none="–"), "perplexity": perplexity}
    environment.filters["counted"] = counted
    environment.globals |= {"draw_layers": draw_layers, "heatmap_picture": heatmap_picture}
    page = environment.get_template("report.html").render(
        **page_parts("report"),
        data=data,
        metrics=metric_names(data),
        headline=headline(data.mean),
        reasons=names_by_reason(
            (name, one.reason) for name, one in data.categories.items() if one.reason
        ),
        labels=LABELS,
        categories=category_views(data),
        defects=sorted({image.defect for image in data.images}),
        scale=scale_picture(),
        tau=charts_of([data.tau_curve] if data.tau_curve else []),
        training=charts_of(data.training),
        tiles=Markup(tiles_json(data.tiles)),  # numbers and base64 of our own
    )
    return as_utf8(page)
