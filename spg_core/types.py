"""Value types that cross borders between packages. Checked when made, trusted afterwards."""

from dataclasses import dataclass

from spg_core.errors import ConfigError


@dataclass(frozen=True)
class PatchGrid:
    """Where an image's patch tokens sit: row-major, `rows` x `cols`, possibly non-square."""

    rows: int
    cols: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise ConfigError(f"a patch grid needs at least one row and column, got {self}")

    def __str__(self) -> str:
        return f"{self.rows} x {self.cols}"

    @property
    def tokens_per_image(self) -> int:
        """Patch tokens of one image, prefix tokens not counted."""
        return self.rows * self.cols
