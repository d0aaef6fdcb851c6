"""Draw what a store holds: the training of a fit, a sweep, a figure; as PDF, SVG or PNG."""

from cache.objects import Objects
from pipeline.artifacts.bodies import decode_rows
from pipeline.artifacts.documents import Document, ReproducedDocument, SweepDocument
from pipeline.artifacts.read import read_json
from pipeline.artifacts.resolve import Place
from pipeline.artifacts.terms import Row
from pipeline.drawing.canvas import Strip
from pipeline.drawing.files import check_picture, write_picture
from pipeline.drawing.plots import training_strip
from pipeline.fitting.log import GUIDE_PANELS, SAE_PANELS, read_log
from pipeline.kinds import BODY, SAY
from pipeline.registry.find import find_any
from pipeline.reproduce.pictures import figure_strips, published_directions
from pipeline.sweep.table import by_layer, heatmaps
from pipeline.terminal.progress import say
from pipeline.words import transfer_words
from spg_core.errors import ConfigError

_PANELS = {"saes": SAE_PANELS, "guides": GUIDE_PANELS}


def draw(store: Objects, reference: str, path: str) -> None:
    """Draw an artifact into a .pdf, .svg or .png file, and say so.

    Raises: ConfigError for another suffix, or where nothing of its kind is drawn; NotInStore,
        StoreError, CorruptStore.
    """
    check_picture(path)
    write_picture(_strips(find_any(store, reference)), path)
    say(f"wrote {path}")


def _strips(place: Place[Document]) -> list[Strip]:
    if place.kind in _PANELS:
        lines = read_log(place.store, place.folder)
        name = place.path.rpartition("/")[2]
        title = f"{SAY[place.kind]} {name}" if place.kind == "saes" else name
        return [training_strip(lines, _PANELS[place.kind], title)]
    document = read_json(place)[1]
    match document:
        case SweepDocument():
            rows, config = _rows(place), document.config
            title = transfer_words(config.aux, config.target, config.backbone)
            return [*heatmaps(rows, title), *by_layer(rows, title)]
        case ReproducedDocument():
            name = document.id.partition("-")[0]
            stated = published_directions(place.store, document.config)
            return figure_strips(name, _rows(place), document.config, stated)
    raise ConfigError(
        f"{place.path} is {SAY[place.kind]}; a picture is drawn of SAEs, guides, sweeps and "
        "figures (scores have a page, report.html)"
    )


def _rows(place: Place[Document]) -> list[Row]:
    name = BODY[place.kind]
    return decode_rows(place.store.get(place.name(name)), place.where(name))
