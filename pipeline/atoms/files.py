"""What `atoms` writes: a Parquet table of patches and a PNG sheet a guide.

The files go to `guides/<id>/atoms/` in the store, or to a folder of the user's choice. They can be
made again at any time, so a second run replaces them, and nothing else that has their names.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cache.objects import Objects
from cache.store import open_store
from pipeline.artifacts import Artifact, load_artifact
from pipeline.artifacts.documents import GuidesDocument
from pipeline.atoms.find import ActiveAtom, find_atoms, guide_names
from pipeline.atoms.sheet import draw_sheet
from pipeline.configs import AtomsConfig
from pipeline.drawing.mark import is_marked
from pipeline.files import check_place
from pipeline.inputs import CachedDataset
from pipeline.progress import say
from pipeline.report.data import Atom, AtomPatch
from pipeline.tables import as_parquet

TABLE = "atoms.parquet"
_COLUMNS: dict[str, pa.DataType] = {
    "guide": pa.string(),
    "atom": pa.int64(),
    "coefficient": pa.float64(),
    "atom_rank": pa.int64(),
    "rank": pa.int64(),
    "row": pa.int64(),
    "image_id": pa.string(),
    "category": pa.string(),
    "defect": pa.string(),
    "patch_row": pa.int64(),
    "patch_col": pa.int64(),
    "activation": pa.float64(),
}


def write_atoms(
    store: Objects, guides: str, config: AtomsConfig, out: str | None = None
) -> dict[str, Any]:
    """Find the atoms of some guides and write their sheets and table.

    Args:
        store: holds the guides, their SAE and the cache they were fitted on.
        guides: id, unique prefix, path, or `latest`.
        config: which atoms and patches.
        out: a folder or URL instead of `guides/<id>/atoms/`.

    Returns: `id`, `path`, `files` and `atoms` (guide, atom, coefficient, shares), ready for JSON.

    Raises: as `find_atoms`; StoreError where the files cannot be written.
    """
    artifact = load_artifact(store, "guides", guides)
    beside = artifact.place
    place = beside.store if out is None else open_store(out)
    # before the pass over the cache, not after it
    if out is not None:
        _check_out(place, config)
    place.check_writable()
    data, found = find_atoms(store, artifact, config)
    _warn(artifact, config)
    prefix = beside.name("atoms/") if out is None else ""
    files = {TABLE: as_parquet(atoms_table(found, data))}
    for guide in dict.fromkeys(one.guide for one in found):
        atoms = as_report_atoms([one for one in found if one.guide == guide], data)
        title = f"{guide} guide of {artifact.id}, {config.coefficients} coefficients"
        files[f"{guide}.png"] = draw_sheet(atoms, title, _picture_note(data), config.patches)
    for name in reversed(files):  # the table last: where it is, its sheets are
        place.replace(prefix + name, [files[name]])
    return {
        "id": artifact.id,
        "path": f"{place.where}/{prefix}".rstrip("/"),
        "files": list(files),
        "atoms": [_summary(one) for one in found],
    }


def _check_out(place: Objects, config: AtomsConfig) -> None:
    """Refuse a folder where a file of somebody else has one of our names. Raises: StoreError."""
    sheets = {f"{one}.png": is_marked for one in guide_names(config)}
    for name, is_ours in {TABLE: _is_table, **sheets}.items():
        path = place.local_path(name)
        if path is not None:
            check_place(path, is_ours, make_folders=True)


def _is_table(path: Path) -> bool:
    try:
        return pq.read_schema(path).names == list(_COLUMNS)
    except pa.ArrowInvalid:
        return False


def _summary(one: ActiveAtom) -> dict[str, Any]:
    return {
        "guide": one.guide,
        "atom": one.atom,
        "coefficient": one.coefficient,
        "patches": len(one.rows),
        "category_spread": dict(one.category_spread),
        "defect_spread": dict(one.defect_spread),
    }


def _warn(guides: Artifact[GuidesDocument], config: AtomsConfig) -> None:
    share = guides.document.training.ema_start_share
    if config.coefficients == "ema" and share > 0.01:
        say(
            f"the averaged coefficients still hold {share:.0%} of their random start, which moves "
            "the order of atoms; --coefficients raw ranks by the last step's"
        )


def _picture_note(data: CachedDataset) -> str:
    if data.manifest.has_thumbnails:
        return f"patches of {data.dataset}, the auxiliary dataset"
    return (
        f"patches of {data.dataset}; activations alone, because its cache holds no pictures: a "
        "cache made by `spg-pipe extract --thumbnails` does"
    )


def as_report_atoms(found: Sequence[ActiveAtom], data: CachedDataset) -> list[Atom]:
    """Give atoms as the report and the sheets draw them, with thumbnails where there are any."""
    return [
        Atom(
            index=one.atom,
            guide=one.guide,
            coefficient=one.coefficient,
            patches=_report_patches(one, data),
            category_spread=one.category_spread,
            defect_spread=one.defect_spread,
        )
        for one in found
    ]


def _report_patches(one: ActiveAtom, data: CachedDataset) -> list[AtomPatch]:
    images = data.manifest.select(one.rows).to_pylist()
    rows, cols = data.spec.grid.rows, data.spec.grid.cols
    return [
        AtomPatch(
            image_path=str(image["image_path"]),
            category=str(image["category"]),
            defect=str(image["defect"]),
            activation=float(one.activations[at]),
            heatmap=one.maps[at],
            thumbnail=image.get("thumbnail"),
            box=(one.patches[at] % cols / cols, one.patches[at] // cols / rows, 1 / cols, 1 / rows),
        )
        for at, image in enumerate(images)
    ]


def atoms_table(found: Sequence[ActiveAtom], data: CachedDataset) -> pa.Table:
    """Give one row a patch: the atom, its guide and coefficient, and where the patch is.

    `atom_rank` counts a guide's atoms by falling coefficient, `rank` an atom's patches by falling
    activation, both from 1.
    """
    cols = data.spec.grid.cols
    lines: list[dict[str, Any]] = []
    ranks: dict[str, int] = {}
    for one in found:
        ranks[one.guide] = ranks.get(one.guide, 0) + 1
        images = data.manifest.select(one.rows).to_pylist()
        for at, image in enumerate(images):
            lines.append(
                {
                    "guide": one.guide,
                    "atom": one.atom,
                    "coefficient": one.coefficient,
                    "atom_rank": ranks[one.guide],
                    "rank": at + 1,
                    "row": int(one.rows[at]),
                    **{name: image[name] for name in ("image_id", "category", "defect")},
                    "patch_row": int(one.patches[at]) // cols,
                    "patch_col": int(one.patches[at]) % cols,
                    "activation": float(one.activations[at]),
                }
            )
    return pa.Table.from_pylist(lines, schema=pa.schema(_COLUMNS))
