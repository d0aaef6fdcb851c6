"""What every stage can be told: one frozen dataclass a stage, the only home of defaults.

The defaults are the `released` recipe (github.com/riips/SPG at 864fca7), which produced the
published tables; `Paper` beside a field says how the paper's text differs. A field's type is its
range, the text below it its help. A `..Source` says which things in the store are meant, a
`..Config` what is done with them, which is saved beside the output. Imports nothing heavy, so that
`spg-pipe --help` is quick.
"""

from pipeline.configs.combining import Combine, CombineConfig, CombineSource
from pipeline.configs.common import (
    Aupro,
    CacheWords,
    Checked,
    ClusterConfig,
    Coefficients,
    DemoConfig,
    Recipe,
    StoreConfig,
    TrackConfig,
)
from pipeline.configs.extract import ExtractConfig
from pipeline.configs.fitting import (
    FitGuidesConfig,
    FitGuidesSource,
    FitMemoryConfig,
    FitMemorySource,
    FitSaeConfig,
    FitSaeSource,
)
from pipeline.configs.grids import (
    DryRunConfig,
    FigureConfig,
    ReproduceConfig,
    ReproduceSource,
    SweepConfig,
)
from pipeline.configs.prediction import (
    CalibrateConfig,
    CalibrateSource,
    ExportSource,
    PredictConfig,
    PredictSource,
)
from pipeline.configs.scoring import (
    AtomsConfig,
    AtomsSource,
    GuidesSource,
    ScoreConfig,
    ScoreSource,
    TableSource,
)

__all__ = [
    "AtomsConfig",
    "AtomsSource",
    "Aupro",
    "CacheWords",
    "CalibrateConfig",
    "CalibrateSource",
    "Checked",
    "ClusterConfig",
    "Coefficients",
    "Combine",
    "CombineConfig",
    "CombineSource",
    "DemoConfig",
    "DryRunConfig",
    "ExportSource",
    "ExtractConfig",
    "FigureConfig",
    "FitGuidesConfig",
    "FitGuidesSource",
    "FitMemoryConfig",
    "FitMemorySource",
    "FitSaeConfig",
    "FitSaeSource",
    "GuidesSource",
    "PredictConfig",
    "PredictSource",
    "Recipe",
    "ReproduceConfig",
    "ReproduceSource",
    "ScoreConfig",
    "ScoreSource",
    "StoreConfig",
    "SweepConfig",
    "TableSource",
    "TrackConfig",
]
