"""Fit guides over several dictionaries in one pass over tokens and masks.

Each batch of images is read, cast, brought to length 1, its masks decoded and taken back to the
patches once; then every fit steps on it by itself, with the bits it would have alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cache.objects import Objects
from cache.order import EpochOrder
from pipeline.artifacts import Artifact, find_artifact, folder, save_artifact
from pipeline.artifacts.documents import (
    Counts,
    Dictionary,
    GuidesDocument,
    GuidesParents,
    GuidesTraining,
    SaeDocument,
    Sparsity,
)
from pipeline.backbones.spec import require_same_tokens
from pipeline.configs import FitGuidesConfig
from pipeline.device import resolve_device
from pipeline.drawing.plots import draw_training
from pipeline.fitting.checkpoint import drop_checkpoint
from pipeline.fitting.dictionaries import GuideDictionary, make_dictionary
from pipeline.fitting.guide_settings import guides_id, require_defects
from pipeline.fitting.log import GUIDE_PANELS, PICTURE
from pipeline.fitting.token_source import TokenSource
from pipeline.fitting.train import Line, Member, compiler_for, join, run
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.progress import Advance, bar, say
from spg_core.anomaly_map import map_operator
from spg_core.compiling import Compiler
from spg_core.errors import FitError, SpgError
from spg_core.guide_step import GuideBatch, GuideFit, GuideTrainer, guide_batch
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


def fit_guide_group(
    store: Objects, wanted: Sequence[tuple[Artifact[SaeDocument], FitGuidesConfig]]
) -> Results:
    """Fit guides for each SAE and config, or find those that are there; artifact or error by id.

    Fits of one cache, seed, batch and number of epochs see the same batches, and share them.
    """
    results: Results = {}
    groups: dict[tuple[str, int, int, int], list[_Request]] = {}
    opened: dict[str, CachedDataset] = {}
    for sae, config in wanted:
        identifier = guides_id(sae.id, config)
        try:
            known = find_artifact(store, "guides", identifier)
            if known is not None:
                results[identifier] = known
                continue
            key = sae.document.parents.cache.key
            if key not in opened:
                opened[key] = _open(store, sae)
            reads = (key, config.seed, config.images_per_step, config.epochs)
            members = groups.setdefault(reads, [])
            if identifier not in {one.id for one in members}:
                members.append(_Request(identifier, sae, opened[key], config))
        except SpgError as error:
            results[identifier] = error
    left = sum(_n_steps(one) for members in groups.values() for one in members)
    if left:
        store.check_writable()
        with bar("Fitting guides", left) as advance:
            for members in groups.values():
                results |= _fit_group(store, members, advance)
    return results


def _open(store: Objects, sae: Artifact[SaeDocument]) -> CachedDataset:
    """Open the cache an SAE was fitted on, and see that it is the same and holds defects."""
    source = sae.document.parents.cache
    data = open_dataset(store, source.dataset, source.backbone, source.key)
    require_same_tokens(
        sae.document.backbone.covers, data.spec.covers(), f"SAE {sae.id}", "the cache"
    )
    require_defects(data)
    return data


def _n_steps(request: _Request) -> int:
    per_epoch = -(-request.data.cache.n_images // request.config.images_per_step)
    return per_epoch * request.config.epochs


def _fit_group(store: Objects, requests: Sequence[_Request], advance: Advance) -> Results:
    """Fit and save guides that see the same batches."""
    results: Results = {}
    device = resolve_device(requests[0].config.device)
    members: list[Member[GuideTrainer]] = []
    dictionaries: dict[str, GuideDictionary] = {}
    for one in requests:
        try:
            chosen = make_dictionary(one.sae, one.data, one.config)
            compiler = compiler_for(_n_steps(one))
            trainer = make_trainer(chosen, one.data, one.config, device, compiler)
            members.append(join(store, one.id, folder("guides", one.id), trainer))
            dictionaries[one.id] = chosen
        except SpgError as error:
            results[one.id] = error
            advance(_n_steps(one))
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


def make_trainer(
    dictionary: GuideDictionary,
    data: CachedDataset,
    config: FitGuidesConfig,
    device: torch.device,
    compiler: Compiler = "auto",
) -> GuideTrainer:
    """Set up one fit; maps are bilinear, without blur. Raises: ConfigError."""
    fit = GuideFit(
        dictionary=dictionary.atoms, alive=dictionary.alive, config=config, free=dictionary.free
    )
    spec = data.spec
    operator = map_operator(spec.grid, spec.height, spec.width, sigma=0)
    return GuideTrainer(fit, operator=operator, device=device, compiler=compiler)


def _train(
    store: Objects,
    shared: _Request,
    members: Sequence[Member[GuideTrainer]],
    source: TokenSource,
    advance: Advance,
) -> None:
    """Take all steps of all epochs, from the last checkpoints if there are any."""
    cache, config = shared.data.cache, shared.config
    per_epoch = -(-cache.n_images // config.images_per_step)
    total = per_epoch * config.epochs
    together = "" if len(members) == 1 else f", {len(members)} fits together"
    say(f"{cache.n_images} images x {config.epochs} epochs, {total} steps{together}")
    for member in members:
        if member.done:
            say(f"{member.id} goes on from step {member.done} of {total}")

    operator = members[0].trainer.operator

    def batches(first: int) -> Iterator[GuideBatch]:
        for epoch in range(first // per_epoch, config.epochs):
            order = EpochOrder(cache.n_images, config.seed, epoch, "images", config.images_per_step)
            for rows in map(order.step, range(max(0, first - epoch * per_epoch), per_epoch)):
                yield guide_batch(operator, source.images(rows), source.masks(rows))

    def step(member: Member[GuideTrainer], batch: GuideBatch, number: int) -> Line:
        loss = member.trainer.step_on(batch)
        line: Line = {"step": number, "epoch": (number - 1) // per_epoch, "loss": loss}
        if number % _STEPS_BETWEEN_COUNTS == 0 or number == total:
            line = {**line, **_counts(member.trainer)}
        return line

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
    for name, pair in coefficients.items():
        when = name.upper() if name == "ema" else "after the last step"
        if not bool(torch.isfinite(pair).all()):
            raise FitError(f"the guides' coefficients are not finite ({when}); lower the step size")
        require_nonzero(pair, when)
    picture = draw_training(member.log.lines, GUIDE_PANELS, member.id)
    store.replace(f"{member.place}/{PICTURE}", [picture])
    document = GuidesDocument(
        id=member.id,
        config=config,
        parents=GuidesParents(cache=request.data.parent, sae=request.sae.id),
        backbone=request.sae.document.backbone,
        dictionary=Dictionary(kind=config.dictionary, atoms=len(dictionary.atoms)),
        sparsity=Sparsity(**{name: _used(pair) for name, pair in coefficients.items()}),
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


def _used(coefficients: Tensor) -> Counts:
    """Count what a pair of guides `(2, C)` uses of the dictionary."""
    found = sparsity_summary(coefficients)
    return Counts(nnz=(found["nnz"][0], found["nnz"][1]), l1=(found["l1"][0], found["l1"][1]))
