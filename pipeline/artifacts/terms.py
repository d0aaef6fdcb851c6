"""What documents are made of: words and numbers with their ranges, and what several share."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from pipeline.backbones.spec import BackboneSpec, spec_from_covers

Part = Annotated[
    str,
    Meta(
        pattern=r'\A[^./\\:*?"<>|\x00-\x1f\x7f-\x9f][^/\\:*?"<>|\x00-\x1f\x7f-\x9f]*\Z',
        max_length=255,
        description="a name that can be a folder's",
    ),
]
Text = Annotated[str, Meta(min_length=1, max_length=1000)]
Key = Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z", description="16 hex digits")]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="a SHA-256, 64 hex digits")]
Time = Annotated[
    str,
    Meta(
        pattern=r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)\Z",
        description="a time such as 2026-01-31T12:00:00+00:00",
    ),
]
Number = Annotated[int, Meta(ge=0, le=2**53)]
Amount = Annotated[float, Meta(ge=0, le=1e300)]
Share = Annotated[float, Meta(ge=0, le=1)]
Pair = tuple[Amount, Amount]
"""Of the normal and of the anomalous guide."""
Versions = dict[Text, Annotated[str, Meta(max_length=200)]]
Cell = int | float | str | bool | None
Row = dict[str, Cell]
"""One line of a sweep or figure: axes, ids, states and metrics."""


def is_part(name: str) -> bool:
    """Tell whether a name can be an artifact's or a dataset's."""
    try:
        return bool(msgspec.convert(name, Part))
    except msgspec.ValidationError:
        return False


def now() -> str:
    """Give the time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class CacheParent:
    """The token cache that something was made from."""

    dataset: Part
    backbone: Text
    """As the user named it."""
    key: Key


@dataclass(frozen=True, kw_only=True)
class SaeFile:
    """A file of an SAE that another program made."""

    name: Text
    """Of the file, without its folder."""
    sha256: Sha256
    rule: Text
    """How it encodes, such as `topk k=32`; `unknown` where the file does not tell."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A backbone by its name, and what a cache key covers of it."""

    name: Text
    covers: dict[str, object]

    @property
    def spec(self) -> BackboneSpec:
        """The same as a spec. Raises: BackboneError."""
        return spec_from_covers(self.covers, self.name)


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The metrics of a category or their mean, in [0, 1]; None where there is none, and why."""

    image_auroc: Share | None
    image_ap: Share | None
    image_f1max: Share | None
    pixel_auroc: Share | None
    pixel_ap: Share | None
    pixel_aupro: Share | None
    pixel_f1max: Share | None
    image_reason: Text | None = None
    pixel_reason: Text | None = None

    @property
    def values(self) -> dict[str, float | None]:
        """The metrics by name, without reasons."""
        return {name: value for name, value in vars(self).items() if not name.endswith("_reason")}

    @property
    def reasons(self) -> list[str]:
        """Why some are None, each reason once."""
        return list(dict.fromkeys(filter(None, (self.image_reason, self.pixel_reason))))
