"""What `score`, `table` and `atoms` can be told."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from pipeline.configs.combining import Combine, Several
from pipeline.configs.common import Aupro, Checked, Coefficients, ImageScore, Pool, Recipe
from spg_core.errors import ConfigError, OptionsDisagree
from spg_core.fields import Device, FilePath, Name, Paper
from spg_core.pooling import Pooling

TableFile = Annotated[
    str,
    Meta(
        pattern=r"^[^\0]+\.(csv|tex|parquet)$",
        description="a .csv, .tex or .parquet file",
        extra={"path": True},
    ),
]


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(Checked):
    """How cached or unseen images are scored with fitted guides."""

    pool: Pool = "lse"
    """Image score of a map: lse (log-sum-exp at tau), max or mean (lse at tau 0 and inf, kept as
    that), or the mean of a share of its pixels, the largest, as in top:0.01. patches:0.01 takes the
    share of the patches instead, before they become pixels: AnomalyDINO's rule."""
    tau: Annotated[float, Meta(ge=0, description="0 to 1e+06 or inf")] = 0.0
    """Temperature of pooling by lse; 0 is the maximum, inf the mean."""
    image_score: ImageScore = "map"
    """What an image's score is of: its map (as published), its CLS token, or both, their mean; cls
    and both need guides fitted with --on cls among the parts."""
    sigma: Annotated[float, Meta(ge=0, le=1000), Paper(0.0)] = 4.0
    """Gaussian on the map, in pixels of the model input; 0 leaves it out."""
    coefficients: Coefficients = "ema"
    """Which of the fitted coefficients: their average, or the last step's."""
    aupro: Aupro = "exact"
    """exact (every threshold), or clip200 (the released 200-step definition)."""
    device: Device = "auto"
    """Where the maths runs."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range."""
        super().__post_init__()
        if 1e6 < self.tau < math.inf:
            raise ConfigError(f"--tau is {self.tau}; it must be a number, 0 to 1e+06 or inf")
        if self.pool == "lse":
            return
        limit = {"max": 0.0, "mean": math.inf}.get(self.pool)
        if self.tau not in (0.0, limit):
            raise OptionsDisagree(
                f"--pool {self.pool} and --tau {self.tau:g}: only lse has a tau; leave one out"
            )
        if limit is not None:
            object.__setattr__(self, "pool", "lse")
            object.__setattr__(self, "tau", limit)

    @property
    def pooling(self) -> Pooling:
        """How a map, or its patches, become an image score."""
        if self.pool == "lse":
            return Pooling(self.tau)
        kind, _, share = self.pool.partition(":")
        return Pooling(top=float(share), of="patches" if kind == "patches" else "map")


@dataclass(frozen=True, kw_only=True)
class GuidesSource(Checked):
    """Which guides are meant."""

    guides: Name
    """Guides, a memory or a combination: id, name, start of an id, path, or latest."""


@dataclass(frozen=True, kw_only=True)
class ScoreSource(Checked):
    """What is scored, by which detector, and what is kept besides the metrics."""

    guides: Several
    """Guides, a memory or a combination: id, name, start of an id, path, or latest; a list such as
    A,B,C is combined."""
    combine: Combine = "mean"
    """How the maps of several meet: mean, max, or learned (a mean with weights fitted on the masks
    of the auxiliary dataset)."""
    dataset: Name
    """Target dataset, by its name in the store."""
    key: Name | None = None
    """Key of the cache, or its start, where there are several."""
    recipe: Recipe | None = None
    """Where options that are not given take their values; the guides' recipe otherwise."""
    save_maps: bool = False
    """Keep the maps, maps.zarr."""
    report: bool = False
    """Write report.html."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range, or a combination of one."""
        if isinstance(self.guides, str):
            object.__setattr__(self, "guides", (self.guides,))
        super().__post_init__()
        if len(self.guides) == 1 and self.combine != "mean":
            raise OptionsDisagree(
                f"--combine {self.combine} is for several; --guides names {self.guides[0]} alone"
            )


@dataclass(frozen=True, kw_only=True)
class TableSource(Checked):
    """Which scores are laid out, and where to."""

    scores: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=1000)]
    """Scores: id, name, start of an id, path, or latest; several of one target, A,B,C, are laid out
    side by side."""
    published: FilePath | None = None
    """CSV file of the paper's numbers by category, typed by you, to stand beside ours."""
    out: TableFile | None = None
    """Also write the table to this file."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range, published numbers beside several scores."""
        super().__post_init__()
        if self.published is not None and len(self.scores) > 1:
            raise OptionsDisagree("--published stands beside one of --scores, not several")


MOST_ON_PAGE = 32
"""Patches an atom that a page of atoms shows."""


@dataclass(frozen=True, kw_only=True)
class AtomsSource(Checked):
    """Whose atoms are shown, and where to."""

    guides: Name | None = None
    """Guides whose atoms are shown: id, name, start of an id, path, or latest."""
    sae: Name | None = None
    """SAE in place of them, all of whose atoms are shown, on a page: id, name, .."""
    out: FilePath | None = None
    """Folder or URL of sheets and a table, guides/ID/atoms otherwise; or a page, FILE.html, of
    every atom, with a table beside it."""

    @property
    def page(self) -> str | None:
        """The page that is asked for, None for sheets."""
        return self.out if self.out is not None and self.out.lower().endswith(".html") else None

    def check(self, config: "AtomsConfig") -> None:
        """Raises: OptionsDisagree where it does not tell one thing to show, and where."""
        if (self.guides is None) == (self.sae is None):
            raise OptionsDisagree("give --guides, or --sae with --out FILE.html")
        if self.sae is not None and self.page is None:
            raise OptionsDisagree("--sae has too many atoms for sheets: add --out FILE.html")
        if self.sae is not None:
            for name, other in (("guide", "both"), ("top", None), ("coefficients", "ema")):
                if (given := getattr(config, name)) != other:
                    raise OptionsDisagree(f"--{name} {given} is of guides, not of --sae")
        if self.page is not None and config.patches > MOST_ON_PAGE:
            raise OptionsDisagree(
                f"--patches is {config.patches}; a page shows up to {MOST_ON_PAGE} an atom"
            )


@dataclass(frozen=True, kw_only=True)
class AtomsConfig(Checked):
    """Which atoms and patches are shown."""

    guide: Literal["anomaly", "normal", "both"] = "both"
    """Whose atoms."""
    top: Annotated[int, Meta(ge=1, le=1000)] | None = None
    """Atoms a guide, those with the largest coefficients; 16 on a sheet and all that are above 0 on
    a page otherwise."""
    patches: Annotated[int, Meta(ge=1, le=1000)] = 8
    """Patches an atom, those with the largest activations."""
    one_per_image: bool = True
    """Take at most one patch of an image for an atom."""
    coefficients: Coefficients = "ema"
    """Which of the fitted coefficients rank the atoms: their average, or the last step's."""
    device: Device = "auto"
    """Where the maths runs."""
