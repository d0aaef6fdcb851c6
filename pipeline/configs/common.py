"""What configs share: the words and ranges several of them take, the store, where work is done."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from spg_core.errors import OptionsDisagree
from spg_core.fields import FilePath, Name, check_fields

Recipe = Literal["released", "paper"]
Coefficients = Literal["ema", "raw"]
Aupro = Literal["exact", "clip200"]
Pool = Annotated[
    str,
    Meta(
        pattern=r"^(lse|max|mean|(top|patches):(1(\.0*)?|0?\.[0-9]{0,8}[1-9][0-9]{0,8}))$",
        description="lse, max, mean, top:Q or patches:Q with Q above 0 and at most 1",
    ),
]
"""How a map becomes an image score, as it is typed."""
ImageScore = Literal["map", "cls", "both"]
Epochs = Annotated[int, Meta(ge=1, le=100_000)]
Images = Annotated[int, Meta(ge=1, le=100_000)]
FEW = Meta(min_length=1, max_length=1000)
"""Beside a list: not empty."""
BatchSize = Annotated[int, Meta(ge=1, le=4096)]
_ARTIFACT_NAME = r"\A(?!latest\Z)(?!.*-[0-9a-f]{8}\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
ArtifactName = Annotated[
    str,
    Meta(
        pattern=_ARTIFACT_NAME,
        description="up to 64 letters, digits, '.', '_' and '-', not latest and not like an id",
    ),
]
"""What a user may call an artifact."""


def is_artifact_name(name: str) -> bool:
    """Tell whether an artifact may be called so."""
    return re.match(_ARTIFACT_NAME, name) is not None


Layer = Annotated[
    str,
    Meta(
        pattern=r"^(-?|every:|last:)[0-9]{1,4}$",
        description="a number from 0, from the end where negative, every:N or last:N",
    ),
]
"""Which block of a backbone, or which blocks, in words of `pipeline.backbones.layers`."""

OneLayer = Annotated[
    str,
    Meta(pattern=r"^-?[0-9]{1,4}$", description="a number from 0, from the end where negative"),
]
"""Which block of a backbone."""


def as_words(given: object) -> tuple[str, ...]:
    """Give the words of a list that is written `5,11`, given as a number, or as several."""
    several = given if isinstance(given, list | tuple) else (given,)
    words = [word.strip() for one in several for word in str(one).split(",")]
    return tuple(dict.fromkeys(words))


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A config whose fields are checked when it is made."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range."""
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Named(Checked):
    """What a fit makes may be given a name."""

    name: ArtifactName | None = None
    """Also call it so: other commands take the name in place of the id."""


@dataclass(frozen=True, kw_only=True)
class InputWords(Checked):
    """Which caches are meant, by what their model saw and gave."""

    image_size: Annotated[int, Meta(ge=1, le=16384)] | None = None
    """Side of the model input of the cache that is meant, in pixels, where there are several."""
    final_norm: bool | None = None
    """Whether the tokens of the cache that is meant passed the final norm."""


@dataclass(frozen=True, kw_only=True)
class CacheWords(InputWords):
    """Which of several caches of a dataset and a backbone is meant, in words instead of a key."""

    layer: OneLayer | None = None
    """Layer of the cache that is meant, from 0 or, where negative, from the end."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range."""
        if isinstance(self.layer, int):  # as a notebook says it
            object.__setattr__(self, "layer", str(self.layer))
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class StoreConfig(Checked):
    """Which store a command works on."""

    store: FilePath = "./spg-store"
    """Folder or URL (s3://bucket/prefix) of the store."""


@dataclass(frozen=True, kw_only=True)
class ClusterConfig(Checked):
    """Where the work of a command is done; nothing here changes what comes out."""

    workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    """Processes of this machine that share the work; 0 uses this one alone."""
    scheduler: Name | None = None
    """Address of a running Dask scheduler whose workers do it, tcp://HOST:8786."""

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range, or both of the two."""
        super().__post_init__()
        if self.workers and self.scheduler is not None:
            raise OptionsDisagree(
                f"--workers {self.workers} and --scheduler {self.scheduler}: give a number of "
                "processes to start here, or the address of a scheduler that runs already"
            )

    @property
    def is_here(self) -> bool:
        """Whether the work is done in this process."""
        return self.workers == 0 and self.scheduler is None


@dataclass(frozen=True, kw_only=True)
class TrackConfig(Checked):
    """Which experiment tracker follows a fit; nothing here changes what comes out."""

    track: Literal["tensorboard", "mlflow", "wandb", "trackio"] | None = None
    """Experiment tracker that gets what training.jsonl holds, too: its own package and settings."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Checked):
    """Where the demonstration puts what it makes."""

    folder: FilePath = "spg-demo"
    """Folder for the sample, the store and the report."""
