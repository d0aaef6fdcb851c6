"""A dataset while it is being listed: what is asked, where it is, what cannot be used."""

from dataclasses import dataclass, field
from pathlib import Path

from manifests.paths import Folder, list_folder, walk_images
from manifests.problems import Kind, Problem


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a user corrects what a layout would take for granted."""

    normal: tuple[str, ...] = ()
    """Folders or labels that are normal besides the known words; `none`: no folder is."""
    masks: str | None = None
    """The folder of masks, below the root; `none`: there is none, and everything is an image."""
    list_file: str | None = None
    """The list, or a folder of lists: a name below the root, or a path."""
    limit: int | None = None
    """Only the first so many images a category and label."""
    skip_broken: bool = False
    """Leave out what cannot be decoded, and say so."""
    follow_links: bool = False
    """Read what links lead to outside the root."""


@dataclass(frozen=True)
class Listing:
    """Where a dataset is, what is wanted of it, and its problems so far."""

    root: Path
    splits: tuple[str, ...]
    dataset: str
    """The category of layouts that have no other."""
    reading: Reading = field(default_factory=Reading)
    problems: list[Problem] = field(default_factory=list)

    def add(self, kind: Kind, path: str, detail: str = "") -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, path, detail))

    def folder(self, path: str) -> Folder:
        """List the folders and images directly in a folder."""
        return list_folder(self.root, path, self.problems, follow_links=self.reading.follow_links)

    def walk(self, path: str) -> list[str]:
        """List the images in a folder and below it."""
        return walk_images(self.root, path, self.problems, follow_links=self.reading.follow_links)
