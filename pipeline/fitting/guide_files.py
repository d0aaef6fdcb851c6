"""What is kept of guides that were fitted: how many atoms they use, and their files."""

from torch import Tensor

from cache.objects import Objects
from pipeline.artifacts import Artifact, save_artifact
from pipeline.artifacts.documents import GuidesDocument
from pipeline.artifacts.guides import Counts, Dictionary, GuidesTraining, Sparsity
from pipeline.configs import FitGuidesConfig
from pipeline.drawing.plots import draw_training
from pipeline.fitting.dictionaries import AtomSource, GuideDictionary
from pipeline.fitting.log import GUIDE_PANELS, PICTURE
from pipeline.fitting.member import Member
from spg_core.guide_step import GuideTrainer
from spg_core.guides import ANOMALY, NORMAL, compose_guides, require_nonzero, sparsity_summary


def coefficient_counts(trainer: GuideTrainer) -> dict[str, Tensor]:
    """Count non-zero coefficients and l1 norms of the last and of the averaged coefficients.

    0-d tensors: the log reads them late, so that no step waits for the device.
    """
    line = {}
    for prefix, raw in (("", trainer.raw), ("ema_", trainer.ema)):
        pair = trainer.coefficients(raw)
        for which, label in ((NORMAL, "normal"), (ANOMALY, "anomaly")):
            line[f"{prefix}nnz_{label}"] = pair[which].count_nonzero().double()
            line[f"{prefix}l1_{label}"] = pair[which].abs().sum()
    return line


def save_guides(
    store: Objects,
    over: AtomSource,
    config: FitGuidesConfig,
    dictionary: GuideDictionary,
    member: Member[GuideTrainer],
) -> Artifact[GuidesDocument]:
    """Write the guides, both averaged and last, with their coefficients and the curves.

    Raises: FitError where one of them is 0 everywhere; StoreError.
    """
    trainer = member.trainer
    coefficients = {
        "raw": trainer.coefficients(trainer.raw).cpu(),
        "ema": trainer.coefficients(trainer.ema).cpu(),
    }
    for name, when in (("raw", "after the last step"), ("ema", "EMA")):
        require_nonzero(coefficients[name], when)
    picture = draw_training(member.log.lines, GUIDE_PANELS, member.id)
    store.replace(f"{member.place}/{PICTURE}", [picture])
    document = GuidesDocument(
        id=member.id,
        config=config,
        parents=over.parents,
        backbone=over.backbone,
        dictionary=Dictionary(kind=config.dictionary, atoms=len(dictionary.atoms)),
        sparsity=Sparsity(
            **{name: Counts(**sparsity_summary(pair)) for name, pair in coefficients.items()}
        ),
        training=GuidesTraining(
            steps=trainer.n_steps,
            # EMA keeps this share of its start; with few steps its coefficients stay dense
            ema_start_share=config.ema ** max(trainer.n_steps - 1, 0),
        ),
    )
    tensors = {}
    for name, pair in coefficients.items():
        tensors[f"coefficients_{name}"] = pair
        tensors[f"guides_{name}"] = compose_guides(pair, dictionary.atoms)
    return save_artifact(store, document, tensors)
