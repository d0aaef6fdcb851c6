"""Keep a store in order: functions of a store and configs, as `pipeline.stages` has the others."""

from typing import TYPE_CHECKING

from pipeline.configs.registry import (
    LsConfig,
    NameConfig,
    PullConfig,
    PushConfig,
    RmConfig,
    ShowConfig,
)

if TYPE_CHECKING:
    from cache.store import AnyStore
    from pipeline.registry.answers import Holdings, Naming, Removal, Shown, Transfer


def ls(store: "AnyStore", config: LsConfig) -> "Holdings":
    """List SAEs, guides, scores and what else a store keeps, each below what it stands on.

    What cannot be read, or is no artifact, is named below. `cache ls` lists the token caches.
    """
    from cache.store import open_existing_store
    from pipeline.registry.keep import holdings

    return holdings(open_existing_store(store, read_only=True), config.kinds)


def show(store: "AnyStore", config: ShowConfig) -> "Shown":
    """Show all that is known of an artifact: its options, what it stands on, what stands on it."""
    from cache.store import open_existing_store
    from pipeline.registry.keep import describe

    objects = open_existing_store(store, read_only=True)
    if config.out is not None:
        from pipeline.registry.draw import draw

        draw(objects, config.artifact, config.out)
    return describe(objects, config.artifact)


def rm(store: "AnyStore", config: RmConfig) -> "Removal":
    """Remove artifacts; a dry run by default. What others stand on stays, unless they go, too.

    Token caches stay: `cache gc --remove` removes those.
    """
    from cache.store import open_existing_store
    from pipeline.registry.keep import remove

    objects = open_existing_store(store, read_only=not config.delete)
    children = config.with_children
    return remove(objects, config.artifacts, with_children=children, delete=config.delete)


def name(store: "AnyStore", config: NameConfig) -> "Naming":
    """Give an artifact a name, which other commands take in place of its id."""
    from cache.store import open_existing_store
    from pipeline.registry.keep import call, uncall

    objects = open_existing_store(store)
    if config.name is None:
        return uncall(objects, config.artifact)
    return call(objects, config.artifact, config.name, move=config.move)


def push(store: "AnyStore", config: PushConfig) -> "Transfer":
    """Copy a detector, or scores, to another store with all it stands on, checked by digest.

    Its threshold and its names go along. What is there already is kept; interrupted, it goes on
    when run again.
    """
    from cache.store import open_existing_store, open_to_push
    from pipeline.registry.transfer import transfer

    source = open_existing_store(store, read_only=True)
    return transfer(
        source,
        open_to_push(config.destination),
        config.artifact,
        with_tokens=config.with_tokens,
        threads=config.threads,
    )


def pull(store: "AnyStore", config: PullConfig) -> "Transfer":
    """Copy a detector, or scores, from another store with all it stands on, checked by digest.

    Its threshold and its names come along. What is here already is kept; interrupted, it goes on
    when run again.
    """
    from cache.store import open_existing_store, open_store
    from pipeline.registry.transfer import transfer

    source = open_existing_store(config.source, read_only=True)
    return transfer(
        source,
        open_store(store),
        config.artifact,
        with_tokens=config.with_tokens,
        threads=config.threads,
    )
