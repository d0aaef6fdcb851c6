"""What `atoms` writes: a Parquet table of patches and a PNG sheet a guide.

The files go to `guides/<id>/atoms/` in the store, or to a folder of the user's choice. They can be
made again at any time, so a second run replaces them, and nothing else that has their names.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cache.objects import Objects
from cache.store import open_store
from pipeline.artifacts import load_artifact
from pipeline.atoms.find import find_atoms, guide_names, warn_of_start
from pipeline.atoms.sheet import draw_sheet
from pipeline.configs import AtomsConfig
from pipeline.drawing.mark import is_marked
from pipeline.files import check_place
from pipeline.inputs import CachedDataset
from pipeline.report.data import Atom, GuideName
from pipeline.tables.frames import as_parquet

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


@dataclass(frozen=True)
class AtomFiles:
    """What was found and where it was written."""

    id: str
    """Of the guides."""
    path: str
    files: Sequence[str]
    atoms: Sequence[Atom]

    def __repr__(self) -> str:
        return f"{len(self.atoms)} atoms of {self.id}: {', '.join(self.files)} in {self.path}"

    def to_json(self) -> dict[str, object]:
        """Give the files, and an atom's guide, number, coefficient and shares."""
        atoms = [
            {
                "guide": one.guide,
                "atom": one.index,
                "coefficient": one.coefficient,
                "patches": len(one.patches),
                "category_spread": dict(one.category_spread),
                "defect_spread": dict(one.defect_spread),
            }
            for one in self.atoms
        ]
        return {"id": self.id, "path": self.path, "files": list(self.files), "atoms": atoms}


def write_atoms(
    store: Objects, guides: str, config: AtomsConfig, out: str | None = None
) -> AtomFiles:
    """Find the atoms of some guides and write their sheets and table.

    Args:
        store: holds the guides, their SAE and the cache they were fitted on.
        guides: id, unique prefix, path, or `latest`.
        config: which atoms and patches.
        out: a folder or URL instead of `guides/<id>/atoms/`.

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
    warn_of_start(artifact, config)
    prefix = beside.name("atoms/") if out is None else ""
    files = {TABLE: as_parquet(atoms_table(found))}
    for guide in dict.fromkeys(one.guide for one in found):
        atoms = [one for one in found if one.guide == guide]
        title = f"{guide} guide of {artifact.id}, {config.coefficients} coefficients"
        files[f"{guide}.png"] = draw_sheet(atoms, title, _picture_note(data), config.patches)
    for name in reversed(files):  # the table last: where it is, its sheets are
        place.replace(prefix + name, [files[name]])
    return AtomFiles(artifact.id, f"{place.where}/{prefix}".rstrip("/"), list(files), found)


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


def _picture_note(data: CachedDataset) -> str:
    if data.manifest.has_thumbnails:
        return f"patches of {data.dataset}, the auxiliary dataset"
    return (
        f"patches of {data.dataset}; activations alone, because its cache holds no pictures: a "
        "cache made by `spg-pipe extract --thumbnails` does"
    )


def atoms_table(found: Sequence[Atom]) -> pa.Table:
    """Give one row a patch: the atom, its guide and coefficient, and where the patch is.

    `atom_rank` counts a guide's atoms by falling coefficient, `rank` an atom's patches by falling
    activation, both from 1.
    """
    ranks: Counter[GuideName] = Counter()
    lines = []
    for one in found:
        ranks[one.guide] += 1
        for rank, patch in enumerate(one.patches, start=1):
            of_atom = (one.guide, one.index, one.coefficient, ranks[one.guide], rank)
            of_image = (patch.row, patch.image_id, patch.category, patch.defect)
            values = (*of_atom, *of_image, *patch.patch, patch.activation)
            lines.append(dict(zip(_COLUMNS, values, strict=True)))
    return pa.Table.from_pylist(lines, schema=pa.schema(_COLUMNS))
