"""Fit-guides: fit guides over dictionaries in one pass over the tokens and masks they share.

Each batch of images is read, cast, brought to length 1, its masks decoded and taken back to the
patches once; then every fit steps on it by itself, with the bits it would have alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from cache.objects import Objects
from pipeline.artifacts import (
    Artifact,
    artifact_id,
    folder,
    load_artifact,
    look_up,
    make_once,
    settings,
)
from pipeline.artifacts.documents import GuidesDocument, SaeDocument
from pipeline.backbones.spec import require_same_tokens
from pipeline.configs import FitGuidesConfig
from pipeline.fitting.checkpoint import drop_checkpoint
from pipeline.fitting.dictionaries import (
    AtomSource,
    GuideDictionary,
    make_dictionary,
    make_trainer,
    of_sae,
)
from pipeline.fitting.guide_files import coefficient_counts, save_guides
from pipeline.fitting.member import Line, Member, join, saved_when_stopped
from pipeline.fitting.tokens import TokenSource, guide_epoch_steps, guide_rows, require_targets
from pipeline.fitting.train import compiler_for, run
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.machine.device import resolve_device, within_memory
from pipeline.terminal.progress import Advance, bar, say
from pipeline.tracking import Kind, follower
from spg_core.errors import FitError, SpgError
from spg_core.guide_step import GuideBatch, GuideTrainer, guide_batch, label_batch

_STEPS_BETWEEN_COUNTS = 10

Results = dict[str, Artifact[GuidesDocument] | SpgError]


@dataclass(frozen=True)
class GuideRequest:
    """Guides to be fitted: over what, on which dataset, how."""

    id: str
    over: AtomSource
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
    track: Kind | None = None,
) -> Artifact[GuidesDocument]:
    """Fit guides over an SAE (id, prefix, path, `latest`) on the dataset it was fitted on.

    Killed, it goes on from its last checkpoint and ends with the same bits. `latest` means them
    from then on, unless they are a control, on CLS tokens, or only a step (`direct`) of something
    else; `name` means them, too.

    Raises: ArtifactError (also for a name that means others), ConfigError, FitError, StoreError.
    """
    parent = load_artifact(store, "saes", sae)
    identifier = guides_id(parent.id, config)
    make = partial(fit_guide_group, store, [(parent, config)], track=track)
    make_latest = direct and latest_may_mean(config)
    return make_once(store, GuidesDocument, identifier, make, direct=make_latest, name=name)


def latest_may_mean(config: FitGuidesConfig) -> bool:
    """Tell whether guides draw maps and are no control; of others say that `latest` stays."""
    if config.on == "cls":
        why = "on CLS tokens, which draw no map"
    elif config.dictionary != "sae":
        why = "a control"
    else:
        return True
    say(f"`latest` stays what it is: these guides are {why}; call them by their id, or a --name")
    return False


def fit_guide_group(
    store: Objects,
    wanted: Sequence[tuple[Artifact[SaeDocument], FitGuidesConfig]],
    tell: Callable[[Results], None] = lambda _: None,
    track: Kind | None = None,
) -> Results:
    """Fit guides for each SAE and config, or find those that are there; artifact or error by id.

    Fits of one cache, seed, batch and number of epochs see the same batches, and share them. `tell`
    is given those that are there, and each group's when it ends.
    """
    groups: dict[tuple[str, str, int, int, int], list[GuideRequest]] = {}
    opened: dict[str, CachedDataset] = {}
    distinct = {guides_id(sae.id, config): (sae, config) for sae, config in wanted}
    results, missing = look_up(store, GuidesDocument, distinct)
    for identifier in missing:
        sae, config = distinct[identifier]
        key = sae.document.parents.cache.key
        try:
            if key not in opened:
                opened[key] = _open(store, sae)
            require_targets(opened[key], config)
        except SpgError as error:
            results[identifier] = error
            continue
        reads = (key, config.on, config.seed, config.images_per_step, config.epochs)
        groups.setdefault(reads, []).append(
            GuideRequest(identifier, of_sae(sae), opened[key], config)
        )
    tell(results)
    left = sum(one.n_steps for members in groups.values() for one in members)
    if left:
        store.check_writable()
        with bar("Fitting guides", left) as advance:
            for members in groups.values():
                made = fit_requests(store, members, advance, track)
                tell(made)
                results |= made
    return results


def guides_id(sae_id: str, config: FitGuidesConfig) -> str:
    """Name the guides that a config makes over an SAE; controls carry their dictionary's name."""
    stem = sae_id.rpartition("-")[0]
    if config.dictionary != "sae":
        stem = f"{stem}-{config.dictionary}"
    if config.on != "patches":
        stem = f"{stem}-{config.on}"
    return artifact_id(stem, {"sae": sae_id, "config": settings(config)})


def _open(store: Objects, sae: Artifact[SaeDocument]) -> CachedDataset:
    """Open the cache an SAE was fitted on, and see that it is the same and holds defects."""
    source = sae.document.parents.cache
    data = open_dataset(store, source.dataset, source.backbone, source.key)
    require_same_tokens(
        sae.document.backbone.covers, data.spec.covers(), f"SAE {sae.id}", "the cache"
    )
    return data


def fit_requests(
    store: Objects,
    requests: Sequence[GuideRequest],
    advance: Advance,
    track: Kind | None = None,
) -> Results:
    """Fit and save guides that see the same batches; artifact or error by id."""
    results: Results = {}
    device = resolve_device(requests[0].config.device)
    members: list[Member[GuideTrainer]] = []
    dictionaries: dict[str, GuideDictionary] = {}
    for one in requests:
        try:
            chosen = make_dictionary(one.over, one.data, one.config)
            compiler = compiler_for(one.n_steps)
            with within_memory(one.id):
                trainer = make_trainer(chosen, one.data, one.config, device, compiler)
            follow = follower(track, one.id, settings(one.config))
            members.append(join(store, one.id, folder("guides", one.id), trainer, follow))
            dictionaries[one.id] = chosen
        except SpgError as error:
            results[one.id] = error
            advance(one.n_steps, skipped=True)
    with saved_when_stopped(store, members, requests[0].n_steps):
        if members:
            source = TokenSource(requests[0].data.cache, device)
            _train(store, requests[0], members, source, advance)
        for member in members:
            request = next(one for one in requests if one.id == member.id)
            results[member.id] = _save(store, request, dictionaries[member.id], member)
    return results


def _save(
    store: Objects,
    request: GuideRequest,
    dictionary: GuideDictionary,
    member: Member[GuideTrainer],
) -> Artifact[GuidesDocument] | FitError:
    """Write what came of a member, or give its error; it leaves no checkpoint either way."""
    made: Artifact[GuidesDocument] | FitError
    try:
        if member.error is not None:
            raise member.error
        made = save_guides(store, request.over, request.config, dictionary, member)
    except FitError as error:
        made = error
    member.saved = member.done
    drop_checkpoint(store, member.place)
    return made


def _train(
    store: Objects,
    shared: GuideRequest,
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
            if config.on == "cls":
                yield label_batch(source.cls(rows), source.labels(shared.data, rows))
            else:
                yield guide_batch(operator, source.images(rows), source.masks(rows))

    def step(member: Member[GuideTrainer], batch: GuideBatch, number: int) -> Line:
        loss = member.trainer.step_on(batch)
        line: Line = {"step": number, "epoch": (number - 1) // per_epoch, "loss": loss}
        counts = number % _STEPS_BETWEEN_COUNTS == 0 or number == total
        return {**line, **coefficient_counts(member.trainer)} if counts else line

    run(store, members, batches, step, total, advance)
