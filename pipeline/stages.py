"""The stages as functions of a store and configs; the commands and `spg_pipe` are made from them.

The parameters' types say the options, the first lines what help says. A stage is imported when it
runs, so that `spg-pipe --help` does not wait for torch.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.configs import (
    AtomsConfig,
    AtomsSource,
    ClusterConfig,
    CombineConfig,
    CombineSource,
    DemoConfig,
    DryRunConfig,
    ExtractConfig,
    FigureConfig,
    FitGuidesConfig,
    FitGuidesSource,
    FitMemoryConfig,
    FitMemorySource,
    FitSaeConfig,
    FitSaeSource,
    ReproduceConfig,
    ReproduceSource,
    ScoreConfig,
    ScoreSource,
    SweepConfig,
    TableSource,
    TrackConfig,
)
from pipeline.options import Asked
from spg_core.errors import OptionsDisagree

if TYPE_CHECKING:
    from cache.store import AnyStore
    from pipeline.artifacts import Artifact
    from pipeline.artifacts.documents import (
        CombinationDocument,
        GuidesDocument,
        MemoryDocument,
        SaeDocument,
        ScoresDocument,
    )
    from pipeline.atoms.browser import AtomPage
    from pipeline.atoms.files import AtomFiles
    from pipeline.extraction.extract import Extraction
    from pipeline.reproduce.paper import Reproduced
    from pipeline.sweep.plan import SweepPlan
    from pipeline.sweep.run import Sweep
    from pipeline.tables.of_metrics import Table


def extract(store: "AnyStore", config: ExtractConfig, cluster: ClusterConfig) -> "Extraction":
    """Write the patch tokens of a dataset into the store, once. Interrupted, it resumes."""
    from cache.store import open_store
    from pipeline.extraction.extract import extract as run

    return run(open_store(store), config, cluster)


def fit_sae(
    store: "AnyStore", source: FitSaeSource, config: FitSaeConfig, tracked: TrackConfig
) -> "Artifact[SaeDocument]":
    """Train a sparse autoencoder on cached tokens. Killed, it resumes from its last checkpoint."""
    from cache.store import open_store
    from pipeline.chosen import chosen_key
    from pipeline.fitting.sae import fit_sae as run
    from pipeline.inputs import open_dataset
    from pipeline.tracking import require_tracker

    require_tracker(tracked.track)
    objects = open_store(store)
    key = chosen_key(objects, source.dataset, source.backbone, source, source.key)
    data = open_dataset(objects, source.dataset, source.backbone, key)
    return run(objects, data, config, name=source.name, track=tracked.track)


def fit_guides(
    store: "AnyStore", source: FitGuidesSource, config: FitGuidesConfig, tracked: TrackConfig
) -> "Artifact[GuidesDocument]":
    """Learn a normal and an anomalous guide over an SAE, on the dataset the SAE was fitted on.

    An SAE of another program is a dictionary, too: --sae-file, with --dataset and --backbone.
    """
    source.check()
    from cache.store import open_store
    from pipeline.chosen import chosen_key
    from pipeline.fitting.guides import fit_guides as run
    from pipeline.fitting.over_file import fit_guides_over_file
    from pipeline.inputs import open_dataset
    from pipeline.tracking import require_tracker

    require_tracker(tracked.track)
    objects = open_store(store)
    if source.sae is not None:
        return run(objects, source.sae, config, name=source.name, track=tracked.track)
    assert source.sae_file is not None
    assert source.dataset is not None
    assert source.backbone is not None
    if config.dictionary != "sae":
        raise OptionsDisagree(f"--dictionary {config.dictionary} is no SAE's; leave --sae-file out")
    key = chosen_key(objects, source.dataset, source.backbone, source, source.key)
    data = open_dataset(objects, source.dataset, source.backbone, key)
    return fit_guides_over_file(objects, data, source.sae_file, config, source.name, tracked.track)


def fit_memory(
    store: "AnyStore", source: FitMemorySource, config: FitMemoryConfig
) -> "Artifact[MemoryDocument]":
    """Keep the tokens of a few normal images of each category; what is far from them is odd."""
    from cache.store import open_store
    from pipeline.fitting.memory import fit_memory as run
    from pipeline.fitting.normal_images import open_normal_images

    objects = open_store(store)
    return run(objects, open_normal_images(objects, source), config, name=source.name)


def combine(
    store: "AnyStore", source: CombineSource, config: CombineConfig
) -> "Artifact[CombinationDocument]":
    """Let several guides and memories, of any layers and backbones, make one map."""
    from cache.store import open_store
    from pipeline.detection.combine import combine as run

    return run(open_store(store), source.guides, config, name=source.name)


def score(
    store: "AnyStore", source: ScoreSource, asked: Asked[ScoreConfig], cluster: ClusterConfig
) -> "Artifact[ScoresDocument]":
    """Score a cached dataset with one detector or several combined: maps, image scores, metrics."""
    from cache.store import open_store
    from pipeline.detection.combine import find_or_combine
    from pipeline.detection.find import recipe_of
    from pipeline.prediction.unlike import remark_unlike
    from pipeline.scoring.score import score as run

    objects = open_store(store)
    meant = asked.under("released")  # neither coefficients nor device are a recipe's
    meeting = CombineConfig(
        combine=source.combine, coefficients=meant.coefficients, device=meant.device
    )
    detector = find_or_combine(objects, source.guides, meeting)
    config = asked.under(source.recipe or recipe_of(detector))
    made = run(
        objects,
        detector,
        source.dataset,
        config,
        key=source.key,
        save_maps=source.save_maps,
        report=source.report,
        cluster=cluster,
    )
    remark_unlike(objects, detector, source.dataset, config, source.key)
    return made


def sweep(
    store: "AnyStore",
    config: SweepConfig,
    cluster: ClusterConfig,
    asked: DryRunConfig,
    tracked: TrackConfig,
) -> "Sweep | SweepPlan":
    """Fit and score a grid in one pass over the tokens; killed, it goes on where it stood.

    While it runs, sweep.parquet and sweep.csv in its folder say how far each point is. Where some
    points failed the exit code is 1; the same command tries those again.
    """
    from cache.store import open_store
    from pipeline.sweep.plan import plan
    from pipeline.sweep.run import sweep as run

    if asked.dry_run:
        return plan(open_store(store, read_only=True), config)
    return run(open_store(store), config, cluster, tracked.track)


def table(store: "AnyStore", source: TableSource) -> "tuple[list[str], Table]":
    """Print scores by category, beside the published means; of several methods side by side."""
    from pipeline.tables.files import check_out, write_table

    if source.out is not None:
        check_out(source.out)
    from cache.store import open_store
    from pipeline.artifacts import load_artifact
    from pipeline.scoring.compare import score_table
    from pipeline.scoring.side_by_side import side_by_side

    objects = open_store(store)
    found = [load_artifact(objects, "scores", one) for one in source.scores]
    if len(found) == 1:
        made = score_table(objects, found[0], source.published)
    else:
        made = side_by_side(objects, found)
    if source.out is not None:
        write_table(made, source.out)
    return [one.id for one in found], made


def reproduce(
    store: "AnyStore",
    source: ReproduceSource,
    config: ReproduceConfig,
    varied: FigureConfig,
    tracked: TrackConfig,
) -> "Reproduced":
    """Fit and score what a table or figure of the paper needs, ours beside the published."""
    from cache.store import open_store
    from pipeline.chosen import chosen_key
    from pipeline.reproduce.paper import reproduce as run

    objects = open_store(store)
    if source.what != "references":  # which take several caches
        aux_key, target_key = (
            chosen_key(objects, dataset, config.backbone, config, key)
            for dataset, key in ((config.aux, config.aux_key), (config.target, config.target_key))
        )
        config = replace(config, aux_key=aux_key, target_key=target_key)
    return run(objects, source, config, varied, tracked.track)


def atoms(store: "AnyStore", source: AtomsSource, config: AtomsConfig) -> "AtomFiles | AtomPage":
    """Show the patches that atoms respond to: sheets of the strongest, or a page of all."""
    from cache.store import open_store

    source.check(config)
    if source.page is not None:
        from pipeline.atoms.browser import write_page

        return write_page(
            open_store(store), config, source.page, guides=source.guides, sae=source.sae
        )
    from pipeline.atoms.files import write_atoms

    assert source.guides is not None
    return write_atoms(open_store(store), source.guides, config, source.out)


def demo(config: DemoConfig) -> "Artifact[ScoresDocument]":
    """Run everything above on a generated sample, offline, in about two minutes on two cores."""
    from pipeline.demo import demo as run

    return run(config.folder)
