"""A fitted detector: its parts, each with its map operator, how they meet, and image scores.

    detector = load_detector("spg-store", "latest")
    maps = detector.maps(tokens)            # (B, patches, d) -> (B, height, width) in [0, 1]
    scores = detector.scores(maps)          # (B,)

A detector of several parts takes the tokens of each, in their order: `detector.maps(five, eight)`.
A part's patches, in whatever grid, become pixels of one height and width, and there they meet.
Nothing that a part was fitted with is needed any more: guides are two vectors of a token's width.

Axes: B images; P_i patches of part i.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import ScoreConfig
from pipeline.configs.common import ImageScore
from pipeline.detection.memory_part import MemoryPart
from pipeline.detection.parts import Part, Reads
from spg_core.anomaly_map import MapOperator, image_scores, map_operator
from spg_core.errors import ArtifactError
from spg_core.guides import unit
from spg_core.meeting import Meeting
from spg_core.pooling import Pooling

ALONE = Meeting()


@dataclass(frozen=True)
class Detector:
    """Everything that turns tokens into maps and scores."""

    id: str
    """Of the artifact."""
    parts: tuple[Part, ...]
    operators: tuple[MapOperator, ...]
    """From the patches of each part that draws to the pixels of `spec`."""
    pooling: Pooling
    meeting: Meeting = ALONE
    """Of all parts."""
    image_score: ImageScore = "map"

    def __repr__(self) -> str:
        spec, size = self.spec, f"{self.spec.height} x {self.spec.width} px"
        more = f" and {len(self.parts) - 1} more parts" if len(self.parts) > 1 else ""
        of, where = f"tokens of {spec.name}{more}, {size}", self.device
        return f"Detector {self.id}: {of}, {self.pooling}, on {where}"

    @property
    def drawing(self) -> list[Part]:
        """The parts that read patches and so draw maps."""
        return [part for part in self.parts if part.reads == "patches"]

    @property
    def whole(self) -> list[Part]:
        """The parts that read CLS tokens, one value an image."""
        return [part for part in self.parts if part.reads == "cls"]

    @property
    def spec(self) -> BackboneSpec:
        """The backbone of the first part that draws, whose input size is the maps'."""
        return self.drawing[0].spec

    @property
    def specs(self) -> list[BackboneSpec]:
        """Whose tokens the parts take, that of the maps first."""
        return [self.spec, *(part.spec for part in self.parts)]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.parts[0].device

    def values(self, *tokens: Tensor, category: str | None = None) -> list[Tensor]:
        """Give each part's values `(B, P_i)` in [0, 1] for its tokens `(B, P_i, d_i)`, any dtype.

        Args:
            tokens: of each part, in order.
            category: of the images; None where nobody knows.
        """
        pairs = zip(self.parts, tokens, strict=True)
        return [part.values(unit(one.float()), category) for part, one in pairs]

    def maps(self, *tokens: Tensor, category: str | None = None) -> Tensor:
        """Give anomaly maps `(B, height, width)` in [0, 1] at the model's input size."""
        return self.draw(*self.values(*tokens, category=category))

    def draw(self, *values: Tensor) -> Tensor:
        """Give maps `(B, height, width)` in [0, 1] of the values `(B, P_i)` of all parts."""
        return self._meeting_of("patches")(self._drawn(values))

    def draw_parts(self, *values: Tensor) -> list[Tensor]:
        """Give each drawing part's own maps, `(B, height, width)` in [0, 1], on one scale."""
        return self._meeting_of("patches").scaled(self._drawn(values))

    def _drawn(self, values: Sequence[Tensor]) -> list[Tensor]:
        # weighted means of them, but for rounding
        pairs = zip(self.operators, self._split(values)[0], strict=True)
        return [operator(one).clamp(0, 1) for operator, one in pairs]

    def _split(self, values: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Part the values of all parts into those that are drawn and those of whole images."""
        pairs = list(zip(self.parts, values, strict=True))
        drawn = [one for part, one in pairs if part.reads == "patches"]
        return drawn, [one for part, one in pairs if part.reads == "cls"]

    def _meeting_of(self, reads: Reads) -> Meeting:
        chosen = [at for at, part in enumerate(self.parts) if part.reads == reads]
        return self.meeting if len(chosen) == len(self.parts) else self.meeting.only(chosen)

    def scores(self, maps: Tensor, *values: Tensor, pooling: Pooling | None = None) -> Tensor:
        """Give image scores `(B,)` for maps `(B, height, width)`.

        Args:
            maps: of `draw` or `maps`.
            values: of every part, as `values` gives them; a score of the map's pixels alone needs
                none.
            pooling: another than the detector's own.

        Raises: ArtifactError where the score is of more than pixels and the values are not given.
        """
        chosen = pooling or self.pooling
        if self.image_score == "map" and chosen.of == "map":
            return image_scores(maps, chosen)
        if len(values) != len(self.parts):
            of = str(chosen) if self.image_score == "map" else "CLS tokens"
            raise ArtifactError(
                f"{self.id} scores images by {of}: give the values of all {len(self.parts)} parts, "
                f"scores(maps, *values), got {len(values)}"
            )
        drawn, whole = self._split(values)
        if self.image_score == "cls":
            return self._of_whole(whole)
        pooled = image_scores(maps, chosen) if chosen.of == "map" else self._of(drawn, chosen)
        return pooled if self.image_score == "map" else (pooled + self._of_whole(whole)) / 2

    def _of(self, drawn: Sequence[Tensor], pooling: Pooling) -> Tensor:
        """Pool each part's patches by themselves; the parts meet as their maps do."""
        return self._meeting_of("patches")([image_scores(one, pooling) for one in drawn])

    def _of_whole(self, whole: Sequence[Tensor]) -> Tensor:
        return self._meeting_of("cls")([one[:, 0] for one in whole])

    def of_category(self, category: str | None) -> "Detector":
        """Give the same detector for images of one category, which then need not say so.

        Guides serve every category. None is the only one that the memories have.

        Raises: ArtifactError for a category that a memory has not, or none of several.
        """
        return replace(
            self,
            parts=tuple(
                part.of(category) if isinstance(part, MemoryPart) else part for part in self.parts
            ),
        )

    def to(self, device: torch.device | str) -> "Detector":
        """Give the same detector on another device."""
        return replace(
            self,
            parts=tuple(part.to(device) for part in self.parts),
            operators=tuple(operator.to(device) for operator in self.operators),
        )


def detector_of(
    identifier: str, parts: Sequence[Part], config: ScoreConfig, meeting: Meeting | None = None
) -> Detector:
    """Make a detector of parts on one device; maps are of the input size of the first that draws.

    Raises: ArtifactError where no part draws, or none reads the CLS tokens that are asked for.
    """
    drawing = [part for part in parts if part.reads == "patches"]
    if not drawing:
        raise ArtifactError(
            f"{identifier} judges CLS tokens and draws no map; combine it with guides on patches: "
            f"--guides PATCHES,{identifier} --image-score cls"
        )
    if config.image_score != "map" and len(drawing) == len(parts):
        raise ArtifactError(
            f"--image-score {config.image_score}: {identifier} has no part on CLS tokens; make one "
            "with `spg-pipe fit-guides --on cls` and combine it with these"
        )
    size = (drawing[0].spec.height, drawing[0].spec.width)
    operators = [
        map_operator(part.spec.grid, *size, config.sigma).to(part.device) for part in drawing
    ]
    n_parts = len(parts)
    even = Meeting(weights=(1 / n_parts,) * n_parts, scales=(None,) * n_parts)
    return Detector(
        identifier,
        tuple(parts),
        tuple(operators),
        config.pooling,
        meeting or even,
        config.image_score,
    )
