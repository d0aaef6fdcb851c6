"""Write the page on which every atom can be looked up; docs/design/020-atoms.md says how.

Pictures first, then the table, then the page, each whole or not at all, so that a page that is
there has all it names; pictures of an earlier page go last.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from cache.objects import Objects
from pipeline.atoms.cut import pictures
from pipeline.atoms.page_data import Images, page_json, page_order
from pipeline.atoms.statistics import Statistics, statistics
from pipeline.atoms.survey import Survey, survey_guides, survey_sae
from pipeline.atoms.table import is_page_table, page_table
from pipeline.configs import AtomsConfig
from pipeline.files import check_place, new_file, write_file
from pipeline.report.page import page_environment, page_parts
from pipeline.tables.frames import as_parquet
from pipeline.terminal.progress import human_bytes
from spg_core.atom_counts import MIN_ACTIVE
from spg_core.errors import OptionsDisagree, StoreError

MOST_IN_PAGE = 1024
"""Atoms up to which the pictures lie in the page itself."""
_PICTURE = re.compile(r"[0-9]{4}-[0-9a-f]{16}\.jpg")


@dataclass(frozen=True)
class AtomPage:
    """A page of atoms and what lies beside it."""

    of: str
    """`guides ID` or `SAE ID`."""
    path: str
    """Of the page."""
    table: str
    pictures: str | None
    """Folder of the pictures, None where they are in the page or there are none."""
    atoms: int
    never_active: int
    size_bytes: int
    """Of the page itself."""

    def __repr__(self) -> str:
        size = human_bytes(self.size_bytes)
        lines = [f"{self.atoms} atoms of {self.of}, {self.never_active} of them never active"]
        lines += [f"{self.path}  ({size})", self.table]
        return "\n".join(lines if self.pictures is None else [*lines, f"{self.pictures}/"])


def write_page(
    store: Objects, config: AtomsConfig, out: str, *, guides: str | None, sae: str | None
) -> AtomPage:
    """Survey the atoms of guides or of an SAE, one of the two, and write their page.

    Args:
        store: holds them and the cache they were fitted on.
        config: which atoms and patches.
        out: the page, on this machine; FILE.html. FILE.parquet and FILE_files are written too.
        guides: id, unique prefix, path, or `latest`.
        sae: the same.

    Raises: as `survey_guides`; StoreError where a file cannot be written; OptionsDisagree: a URL.
    """
    path, table, folder = _places(out)
    if guides is not None:
        survey = survey_guides(store, guides, config)
    else:
        assert sae is not None
        survey = survey_sae(store, sae, config)
    found = statistics(survey)
    order = page_order(survey, found)
    images = _images(survey)
    shown = order[survey.strongest.row[order, 0] >= 0]
    cut = pictures(survey, shown, path.parent)
    is_apart = len(order) > MOST_IN_PAGE and survey.data.manifest.has_thumbnails
    names = _write_pictures(folder, cut) if is_apart else []
    write_file(table, as_parquet(page_table(survey, found, images)), is_page_table)
    embedded = () if is_apart else (base64.b64encode(one).decode() for one in cut)
    linked = [f"{quote(folder.name)}/{name}" for name in names]
    _write(path, survey, found, page_json(survey, found, order, images), linked, embedded)
    _forget(folder, names)
    return AtomPage(
        of=survey.of,
        path=str(path),
        table=str(table),
        pictures=str(folder) if names else None,
        atoms=len(order),
        never_active=int(np.count_nonzero(found.active == 0)),
        size_bytes=path.stat().st_size,
    )


def _places(out: str) -> tuple[Path, Path, Path]:
    """Give the page, the table and the folder of pictures, and refuse what is in the way."""
    if "://" in out:
        raise OptionsDisagree(f"--out {out}: a page is written to this machine; name a file")
    path = Path(out).expanduser()
    table, folder = path.with_suffix(".parquet"), path.with_name(f"{path.stem}_files")
    check_place(path, make_folders=True)
    check_place(table, is_page_table, make_folders=True)
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is there and is no folder; choose another name for the page")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path, table, folder


def _images(survey: Survey) -> Images:
    """Give what the manifest says of the images that patches are from."""
    rows = np.unique(survey.strongest.row)
    wanted = survey.data.manifest.select(rows[rows >= 0])
    names = ("image_id", "image_path", "category", "defect")
    lines = wanted.select(["row", *names]).to_pylist()
    return {int(one["row"]): {name: str(one[name]) for name in names} for one in lines}


def _write_pictures(folder: Path, cut: Iterable[bytes]) -> list[str]:
    """Write pictures under names that hold their digest; one that is there is the same."""
    folder.mkdir(exist_ok=True)
    names = []
    for at, jpeg in enumerate(cut):
        name = f"{at:04d}-{hashlib.sha256(jpeg).hexdigest()[:16]}.jpg"
        write_file(folder / name, jpeg)
        names.append(name)
    return names


def _write(
    path: Path,
    survey: Survey,
    found: Statistics,
    numbers: str,
    linked: list[str],
    embedded: Iterable[str],
) -> None:
    template = page_environment().get_template("atoms.html")
    stream = template.stream(
        **page_parts("atoms", "data: blob: file: 'self'"),
        survey=survey,
        n_atoms=len(survey.atoms),
        n_never=int(np.count_nonzero(found.active == 0)),
        n_images=survey.data.manifest.n_images,
        table=path.with_suffix(".parquet").name,
        has_pictures=survey.data.manifest.has_thumbnails,
        patches=survey.counts.tokens.sum(0).tolist(),
        min_active=MIN_ACTIVE,
        numbers=numbers,
        linked=linked,
        embedded=embedded,
    )
    with new_file(path) as temporary:
        stream.dump(str(temporary), encoding="utf-8", errors="backslashreplace")


def _forget(folder: Path, kept: list[str]) -> None:
    """Remove the pictures of an earlier page."""
    if not folder.is_dir():
        return
    for one in folder.iterdir():
        if _PICTURE.fullmatch(one.name) and one.name not in kept:
            one.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
