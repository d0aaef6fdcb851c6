"""A dataset while it is being listed: what is asked, where it is, what cannot be used."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from manifests.guess import but_looks_like, looks_like
from manifests.named_paths import normal_path
from manifests.paths import Folder, list_folder, path_problem, walk
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

    @property
    def no_masks(self) -> bool:
        """Whether the user says that no folder holds masks."""
        return self.reading.masks == "none"

    @property
    def masks(self) -> str | None:
        """The folder that the user says holds the masks, in its shortest form."""
        named = None if self.no_masks else self.reading.masks
        return None if named is None else normal_path(named, self.root)

    def this_looks_like(self, asked: str = "") -> str:
        """Give the end of an error: what the folder looks like, unless that is what was asked."""
        return but_looks_like(self._looks_like, asked)

    @cached_property
    def _looks_like(self) -> tuple[str, str] | None:
        return looks_like(self.root)

    def check_masks(self, places: Iterable[str]) -> None:
        """Refuse a folder of masks that the user names and that is in none of these places."""
        named = self.masks
        if named is not None:
            folders = [self.root / place / named for place in places]
            if path_problem(named) or not any(os.path.isdir(folder) for folder in folders):  # noqa: PTH112
                self.add(
                    "wrong layout",
                    named,
                    "named by --masks, and no folder below the root is called so",
                )

    def add(self, kind: Kind, path: str, detail: str = "") -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, path, detail))

    def folder(self, path: str) -> Folder:
        """List the folders and images directly in a folder."""
        follow = self.reading.follow_links
        listed = list_folder(self.root, path, self.problems, follow_links=follow)
        for picture in listed.unread:
            self.add("unread format", picture)
        return listed

    def below(self, path: str) -> list[Folder]:
        """List a folder and all below it."""
        follow = self.reading.follow_links
        folders = walk(self.root, path, self.problems, follow_links=follow)
        for picture in [picture for folder in folders for picture in folder.unread]:
            self.add("unread format", picture)
        return folders

    def walk(self, path: str) -> list[str]:
        """List the images in a folder and below it."""
        return sorted(image for folder in self.below(path) for image in folder.images)
