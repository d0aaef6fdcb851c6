"""Fit-guides: fit guides over dictionaries in one pass over the tokens and masks they share.

Each batch of images is read, cast, brought to length 1, its masks decoded and taken back to the
patches once; then every fit steps on it by itself, with the bits it would have alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from cache.objects import Objects
from pipeline.artifacts import (
    Artifact,
    artifact_id,
    find_artifact,
    folder,
    load_artifact,
    make_latest,
    save_artifact,
    settings,
)
from pipeline.artifacts.documents import (
    Counts,
    Dictionary,
    GuidesDocument,
    GuidesParents,
    GuidesTraining,
    SaeDocument,
    Sparsity,
)
from pipeline.artifacts.names import give_name, require_free
from pipeline.backbones.spec import require_same_tokens
from pipeline.configs import FitGuidesConfig
from pipeline.device import resolve_device, within_memory
from pipeline.drawing.plots import draw_training
from pipeline.fitting.checkpoint import drop_checkpoint, drop_leftover
from pipeline.fitting.dictionaries import GuideDictionary, make_dictionary, make_trainer
from pipeline.fitting.log import GUIDE_PANELS, PICTURE
from pipeline.fitting.tokens import TokenSource, guide_epoch_steps, guide_rows, require_defects
from pipeline.fitting.train import Line, Member, compiler_for, join, run
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.progress import Advance, bar, say
from spg_core.errors import FitError, SpgError
from spg_core.guide_step import GuideBatch, GuideTrainer, guide_batch
from spg_core.guides import ANOMALY, NORMAL, compose_guides, require_nonzero, sparsity_summary

_STEPS_BETWEEN_COUNTS = 10

Results = dict[str, Artifact[GuidesDocument] | SpgError]


@dataclass(frozen=True)
class _Request:
    """Guides to be fitted: over what, on which dataset, how."""

    id: str
    sae: Artifact[SaeDocument]
    data: CachedDataset
    config: FitGuidesConfig

    @property
    def n_steps(self) -> int:
        """Steps of all epochs."""
        return guide_epoch_steps(self.data.cache, self.config) * self.config.epochs


def fit_guides(
    store: Objects,
    sae: str,
    config: FitGuidesConfig,
    *,
    direct: bool = True,
    name: str | None = None,
) -> Artifact[GuidesDocument]:
    """Fit guides over an SAE (id, prefix, path, `latest`) on the dataset it was fitted on.

    Killed, it goes on from its last checkpoint and ends with the same bits. `latest` means them
    from then on, unless they are a control or only a step (`direct`) of something else; `name`
    means them, too.

    Raises: ArtifactError (also for a name that means others), ConfigError, FitError, StoreError.
    """
    parent = load_artifact(store, "saes", sae)
    identifier = guides_id(parent.id, config)
    if name is not None:
        require_free(store, "guides", name, identifier)
    made: Artifact[GuidesDocument] | SpgError | None = find_artifact(store, "guides", identifier)
    if made is None:
        made = fit_guide_group(store, [(parent, config)])[identifier]
    else:
        say(f"guides {identifier} are there already")
        drop_leftover(store, folder("guides", identifier))
    if isinstance(made, SpgError):
        raise made
    if direct and config.dictionary == "sae":
        make_latest(made.place, made.id)
    if name is not None:
        give_name(store, "guides", made.id, name)
    return made


def fit_guide_group(
    store: Objects, wanted: Sequence[tuple[Artifact[SaeDocument], FitGuidesConfig]]
) -> Results:
    """Fit guides for each SAE and config, or find those that are there; artifact or error by id.

    Fits of one cache, seed, batch and number of epochs see the same batches, and share them.
    """
    results: Results = {}
    groups: dict[tuple[str, int, int, int], list[_Request]] = {}
    opened: dict[str, CachedDataset] = {}
    distinct = {guides_id(sae.id, config): (sae, config) for sae, config in wanted}
    for identifier, (sae, config) in distinct.items():
        try:
            known = find_artifact(store, "guides", identifier)
            if known is not None:
                results[identifier] = known
                continue
            key = sae.document.parents.cache.key
            if key not in opened:
                opened[key] = _open(store, sae)
            reads = (key, config.seed, config.images_per_step, config.epochs)
            groups.setdefault(reads, []).append(_Request(identifier, sae, opened[key], config))
        except SpgError as error:
            results[identifier] = error
    left = sum(one.n_steps for members in groups.values() for one in members)
    if left:
        store.check_writable()
        with bar("Fitting guides", left) as advance:
            for members in groups.values():
                results |= _fit_group(store, members, advance)
    return results


def guides_id(sae_id: str, config: FitGuidesConfig) -> str:
    """Name the guides that a config makes over an SAE; controls carry their dictionary's name."""
    stem = sae_id.rpartition("-")[0]
    if config.dictionary != "sae":
        stem = f"{stem}-{config.dictionary}"
    return artifact_id(stem, {"sae": sae_id, "config": settings(config)})


def _open(store: Objects, sae: Artifact[SaeDocument]) -> CachedDataset:
    """Open the cache an SAE was fitted on, and see that it is the same and holds defects."""
    source = sae.document.parents.cache
    data = open_dataset(store, source.dataset, source.backbone, source.key)
    require_same_tokens(
        sae.document.backbone.covers, data.spec.covers(), f"SAE {sae.id}", "the cache"
    )
    require_defects(data)
    return data


def _fit_group(store: Objects, requests: Sequence[_Request], advance: Advance) -> Results:
    """Fit and save guides that see the same batches."""
    results: Results = {}
    device = resolve_device(requests[0].config.device)
    members: list[Member[GuideTrainer]] = []
    dictionaries: dict[str, GuideDictionary] = {}
    for one in requests:
        try:
            chosen = make_dictionary(one.sae, one.data, one.config)
            compiler = compiler_for(one.n_steps)
            with within_memory(one.id):
                trainer = make_trainer(chosen, one.data, one.config, device, compiler)
            members.append(join(store, one.id, folder("guides", one.id), trainer))
            dictionaries[one.id] = chosen
        except SpgError as error:
            results[one.id] = error
            advance(one.n_steps)
    if members:
        _train(store, requests[0], members, TokenSource(requests[0].data.cache, device), advance)
    for member in members:
        request = next(one for one in requests if one.id == member.id)
        try:
            if member.error is not None:
                raise member.error
            results[member.id] = _save(store, request, dictionaries[member.id], member)
        except FitError as error:
            results[member.id] = error
        drop_checkpoint(store, member.place)
    return results


def _train(
    store: Objects,
    shared: _Request,
    members: Sequence[Member[GuideTrainer]],
    source: TokenSource,
    advance: Advance,
) -> None:
    """Take all steps of all epochs, from the last checkpoints if there are any."""
    cache, config = shared.data.cache, shared.config
    per_epoch, total = guide_epoch_steps(cache, config), shared.n_steps
    together = "" if len(members) == 1 else f", {len(members)} fits together"
    say(f"{cache.n_images} images x {config.epochs} epochs, {total} steps{together}")
    operator = members[0].trainer.operator

    def batches(first: int) -> Iterator[GuideBatch]:
        for rows in guide_rows(cache, config, first):
            yield guide_batch(operator, source.images(rows), source.masks(rows))

    def step(member: Member[GuideTrainer], batch: GuideBatch, number: int) -> Line:
        loss = member.trainer.step_on(batch)
        line: Line = {"step": number, "epoch": (number - 1) // per_epoch, "loss": loss}
        counts = number % _STEPS_BETWEEN_COUNTS == 0 or number == total
        return {**line, **_counts(member.trainer)} if counts else line

    run(store, members, batches, step, total, advance)


def _counts(trainer: GuideTrainer) -> dict[str, Tensor]:
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


def _save(
    store: Objects,
    request: _Request,
    dictionary: GuideDictionary,
    member: Member[GuideTrainer],
) -> Artifact[GuidesDocument]:
    """Write the guides, both averaged and last, with their coefficients and the curves."""
    trainer, config = member.trainer, request.config
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
        parents=GuidesParents(cache=request.data.parent, sae=request.sae.id),
        backbone=request.sae.document.backbone,
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
