"""What a report is made of, with hostile names, for its tests."""

import base64
import io

import numpy as np
from PIL import Image

from pipeline.report.data import (
    Atom,
    AtomPatch,
    CategoryCurves,
    GalleryItem,
    ImageRow,
    Line,
    LinePlot,
    MetricRow,
    ReportData,
    Sparsity,
    SparsityRow,
)
from pipeline.report.gallery import select_gallery
from pipeline.report.pictures import draw_tile

HOSTILE = (
    "</script><script>window.hacked=1</script>",
    '"><img src=x onerror="window.hacked=1">',
    "javascript:window.hacked=1",
    "' onmouseover='window.hacked=1",
    "{{ 7 * 7 }}{% raw %}",
    "</style><!--",
)


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
    line = Line(x=[0.0, 0.1, 1.0], y=[0.0, 0.8, 1.0])
    patch = AtomPatch(
        row=1,
        image_id="one",
        image_path=images[1].image_path,
        category=names[0],
        defect=defect,
        activation=3.0,
        heatmap=np.array([[0, 1, 0], [0, 3, 0]], np.float32),
        thumbnail=jpeg(),
        patch=(1, 1),
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
        tiles={
            image.row: draw_tile(np.full((16, 24), image.score, np.float32), jpeg(), "a tile")
            for image in images
        },
        curves={
            name: CategoryCurves(
                image_roc=line, pixel_roc=line, image_pr=line, pixel_pr=line, pro=line
            )
            for name in names
        },
        tau_curve=LinePlot(
            title="Image metrics against tau",
            x_label="tau (log scale)",
            y_label="mean over categories",
            lines={
                "image AUROC": Line(x=[0.01, 1, 100], y=[0.9, 0.8, 0.7]),
                "image AP": Line(x=[0.01, 1, 100], y=[1, 1, 0.5]),
            },
            log_x=True,
        ),
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


def decoded(uri: str) -> Image.Image:
    """Open the picture of a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))
