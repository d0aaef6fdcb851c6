"""What a report shows of guides: sparsity, training, the strongest atoms."""

from cache.objects import Objects
from pipeline.artifacts import Artifact, folder
from pipeline.artifacts.documents import GuidesDocument
from pipeline.atoms.find import find_atoms, has_atoms
from pipeline.configs import AtomsConfig, ScoreConfig
from pipeline.fitting.log import GUIDE_PANELS, SAE_PANELS, read_log
from pipeline.report.data import Atom, GuideName, Line, LinePlot, Sparsity, SparsityRow
from pipeline.terminal.progress import say
from pipeline.words import field_words
from spg_core.errors import CorruptStore, IncompleteCache, NotInStore

_ATOMS_PER_GUIDE = 8


def sparsity_of(guides: Artifact[GuidesDocument]) -> Sparsity:
    """Give how many coefficients are in use, by the last step and by the average."""
    names: tuple[GuideName, GuideName] = ("normal", "anomaly")
    stored = guides.document.sparsity
    rows = [
        SparsityRow(
            guide=guide,
            parameters="EMA" if kind == "ema" else "raw",
            nonzero=int(counts.nnz[at]),
            l1=counts.l1[at],
        )
        for kind, counts in (("raw", stored.raw), ("ema", stored.ema))
        for at, guide in enumerate(names)
    ]
    share = guides.document.training.ema_start_share
    note = (
        f"After {guides.document.training.steps} steps the average still holds {share:.0%} "
        "of its start, so its coefficients stay dense."
        if share > 0.01
        else ""
    )
    n_latents = int(guides.tensors["coefficients_ema"].shape[1])
    return Sparsity(n_latents=n_latents, rows=rows, note=note)


def training_of(store: Objects, guides: Artifact[GuidesDocument]) -> list[LinePlot]:
    """Give the curves of both fits, where their logs are still in the store.

    Raises: StoreError where a log is there and a read fails.
    """
    plots = []
    sae = guides.document.parents.sae
    asked = [(folder("guides", guides.id), "Guides", GUIDE_PANELS)]
    if sae is not None:
        asked.insert(0, (folder("saes", sae), "SAE", SAE_PANELS))
    for place, what, panels in asked:
        try:
            lines = read_log(store, place)
        except NotInStore:
            continue
        except CorruptStore as error:
            say(f"the report shows no training of the {what}: {error}")
            continue
        for label, fields in panels.items():
            drawn = {}
            for field in fields:
                points = [(line["step"], line[field]) for line in lines if field in line]
                thin = points[:: -max(1, len(points) // 400)][::-1]  # the last one is kept
                drawn[field_words(field)] = Line(
                    x=[float(x) for x, _ in thin], y=[float(y) for _, y in thin]
                )
            plots.append(
                LinePlot(title=f"{what}: {label}", x_label="step", y_label=label, lines=drawn)
            )
    return plots


def atoms_of(store: Objects, guides: Artifact[GuidesDocument], scored: ScoreConfig) -> list[Atom]:
    """Give the strongest atoms of the guides that scored; none where their parents cannot be had.

    A shared store may hold the target and the guides alone: the page then has no atoms. Where a
    read fails there is no page at all: one without atoms would stay, and be taken for whole.

    Raises: StoreError.
    """
    if not has_atoms(guides):
        return []
    config = AtomsConfig(
        top=_ATOMS_PER_GUIDE,
        coefficients=scored.coefficients,
        device=scored.device,
    )
    try:
        _, found = find_atoms(store, guides, config)
    except (NotInStore, IncompleteCache, CorruptStore) as error:
        say(f"the report shows no atoms: {error}")
        return []
    return found
