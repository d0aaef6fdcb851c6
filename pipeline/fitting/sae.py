"""Fit-sae: train SAEs in one pass over the tokens, each with the bits it would have alone.

What is shared is what costs outside the maths: each batch is read, put in order, moved and cast
once. The products are not. SAEs of one width could share the encoder's product by writing their
encoders under each other, but that saves no operations (k differs, so do the weights), and BLAS
does not promise the same rounding for another shape, which would cost the bits.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from torch import Tensor

from cache.objects import Objects
from cache.reader import TokenCache
from pipeline.artifacts import (
    Artifact,
    artifact_id,
    folder,
    load_artifact,
    look_up,
    make_once,
    settings,
)
from pipeline.artifacts.documents import SaeDocument
from pipeline.backbones.spec import slug
from pipeline.configs import FitSaeConfig
from pipeline.fitting.budget import memory_budget, plan_groups
from pipeline.fitting.checkpoint import drop_checkpoint
from pipeline.fitting.fastest import fastest_way
from pipeline.fitting.member import Line, Member, join, saved_when_stopped
from pipeline.fitting.quality import measure_saes
from pipeline.fitting.sae_files import save_sae, training_remark
from pipeline.fitting.tokens import TokenSource, epoch_steps, sae_batches
from pipeline.fitting.train import compiler_for, run
from pipeline.inputs import CachedDataset
from pipeline.machine.device import resolve_device, within_memory
from pipeline.terminal.progress import Advance, bar, say
from pipeline.tracking import Kind, follower
from spg_core.errors import FitError, SpgError
from spg_core.sae import Sae
from spg_core.sae_step import SaeTrainer

Results = dict[str, Artifact[SaeDocument] | SpgError]


def fit_sae(
    store: Objects,
    data: CachedDataset,
    config: FitSaeConfig,
    *,
    direct: bool = True,
    name: str | None = None,
    track: Kind | None = None,
) -> Artifact[SaeDocument]:
    """Train an SAE on every token of a cache, or give the one that the same request made before.

    Killed, it goes on from its last checkpoint and ends with the same bits. `latest` means it from
    then on, unless it is only a step (`direct`) of something else; `name` means it, too. A tracker
    may `track` it.

    Raises: ArtifactError for a name that means another; ConfigError, FitError, StoreError.
    """
    identifier = sae_id(data, config)
    make = partial(fit_saes, store, data, [config], track=track)
    return make_once(store, SaeDocument, identifier, make, direct=direct, name=name)


def fit_saes(
    store: Objects,
    data: CachedDataset,
    configs: Sequence[FitSaeConfig],
    memory_bytes: int | None = None,
    tell: Callable[[Results], None] = lambda _: None,
    track: Kind | None = None,
) -> Results:
    """Train an SAE for each config, or find the one that is there; give artifact or error by id.

    Configs of one seed, order, batch and number of epochs see the same batches and are trained
    together, as many at a time as `memory_bytes` hold. `tell` is given those that are there, and
    each group's when it ends.
    """
    wanted = {sae_id(data, config): config for config in configs}
    results, left = look_up(store, SaeDocument, wanted)
    pending = {identifier: wanted[identifier] for identifier in left}
    tell(results)
    if pending:
        store.check_writable()
        device = resolve_device(next(iter(pending.values())).device)
        source = TokenSource(data.cache, device)
        groups = plan_groups(data.cache, pending, memory_bytes or memory_budget(device))
        n_steps = sum(epoch_steps(data.cache, one) * one.epochs for one in pending.values())
        with bar("Fitting SAEs" if len(pending) > 1 else "Fitting SAE", n_steps) as advance:
            for group in groups:
                chosen = {identifier: pending[identifier] for identifier in group}
                made = _fit_group(store, data, source, chosen, advance, track)
                tell(made)
                results |= made
    return {identifier: results[identifier] for identifier in wanted}


def sae_id(data: CachedDataset, config: FitSaeConfig) -> str:
    """Name the SAE that a config makes of a cache; the device is no part of it."""
    stem = f"{data.dataset}-{slug(data.backbone)}-c{config.width}-k{config.k}"
    return artifact_id(stem, {"cache": data.cache.key, "config": settings(config)})


def load_sae(store: Objects, reference: str) -> tuple[Artifact[SaeDocument], Sae]:
    """Read an SAE artifact and the SAE in it. Raises: as `load_artifact`, ConfigError."""
    artifact = load_artifact(store, "saes", reference)
    config = artifact.document.config
    sae = Sae(
        artifact.tensors["encoder"],
        artifact.tensors["dictionary"],
        k=config.k,
        sparsifier=config.sparsifier,
        clamp=config.clamp,
    )
    return artifact, sae


def _fit_group(
    store: Objects,
    data: CachedDataset,
    source: TokenSource,
    configs: dict[str, FitSaeConfig],
    advance: Advance,
    track: Kind | None,
) -> Results:
    """Train, measure and save SAEs that see the same batches."""
    shared = next(iter(configs.values()))
    per_epoch, d_model = epoch_steps(data.cache, shared), data.cache.d_model
    members: list[Member[SaeTrainer]] = []
    broken: Results = {}
    n_steps = per_epoch * shared.epochs
    compiler = compiler_for(n_steps)
    for identifier, config in configs.items():
        way = fastest_way(config, d_model, source.device)
        try:
            with within_memory(identifier):
                trainer = SaeTrainer(
                    config,
                    d_model,
                    str(source.device),
                    way.path,
                    compiler=compiler,
                    libraries=way.libraries,
                )
            follow = follower(track, identifier, settings(config))
            members.append(join(store, identifier, folder("saes", identifier), trainer, follow))
        except SpgError as error:  # no room, or a checkpoint that cannot be read
            broken[identifier] = error
            advance(n_steps, skipped=True)
    if not members:
        return broken
    _announce(members, data.cache, n_steps, source)

    def step(member: Member[SaeTrainer], tokens: Tensor, number: int) -> Line:
        stats = member.trainer.step(tokens)
        return {
            "step": number,
            "epoch": (number - 1) // per_epoch,
            "loss": stats.loss,
            "fvu": stats.fvu,
            "l0": stats.l0,
            "dead": stats.n_dead,
        }

    def batches(first: int) -> Iterator[Tensor]:
        return sae_batches(source, shared, first)

    with saved_when_stopped(store, members, n_steps):
        run(store, members, batches, step, n_steps, advance)
        return broken | _finish(store, data, source, configs, members)


def _announce(
    members: Sequence[Member[SaeTrainer]],
    cache: TokenCache,
    n_steps: int,
    source: TokenSource,
) -> None:
    what = members[0].trainer.path if len(members) == 1 else f"{len(members)} SAEs together"
    place = "kept on" if source.is_resident else "streamed to"
    say(
        f"{cache.n_tokens} tokens of {cache.d_model}, {n_steps} steps, "
        f"tokens {place} {source.device} ({what})"
    )


def _finish(
    store: Objects,
    data: CachedDataset,
    source: TokenSource,
    configs: dict[str, FitSaeConfig],
    members: Sequence[Member[SaeTrainer]],
) -> Results:
    """Measure those that came through in one more pass, and save them."""
    saes = {}
    for member in members:
        try:
            if member.error is None:
                saes[member.id] = member.trainer.sae()
        except FitError as error:
            member.error = error
    qualities = measure_saes(saes, source)
    for remark in {training_remark(one.log.lines, configs[one.id], data.cache) for one in members}:
        if remark is not None:
            say(remark)
    results: Results = {}
    for member in members:
        if member.error is not None:
            # what is left of a fit that failed would only fail again
            drop_checkpoint(store, member.place)
            results[member.id] = member.error
            continue
        config, quality = configs[member.id], qualities[member.id]
        results[member.id] = save_sae(store, data, config, member, quality)
    return results
