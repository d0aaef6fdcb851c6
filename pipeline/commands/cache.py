"""`spg-pipe cache`: look at, check, copy and tidy the token caches of a store."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from pipeline.commands.from_config import from_config
from pipeline.commands.shown import show
from pipeline.commands.style import STYLE
from pipeline.configs.caches import CopyConfig, GcConfig, InfoConfig, VerifyConfig

if TYPE_CHECKING:
    from cache.store import AnyStore
    from pipeline.caches.answers import Checked, Copies, Differences, Facts, Listing, Tidied

app = typer.Typer(
    name="cache",
    add_completion=False,
    help="Look at, check, copy and tidy the token caches.",
    **STYLE,
)


def ls(store: "AnyStore") -> "Listing":
    """List the caches of a store: state, images, size, and which SAEs, guides and scores use them.

    A cache is partial until its last shard and its record are written; `extract` goes on with it.
    What is damaged or no cache is named below; `cache verify` checks every byte.
    """
    from cache.store import open_existing_store
    from pipeline.caches.report import listing

    return listing(open_existing_store(store, read_only=True))


def _show_ls(found: "Listing", as_json: bool) -> None:
    from pipeline.caches.tables import listing_text

    show(asdict(found), as_json, "" if as_json else listing_text(found))


def info(store: "AnyStore", config: InfoConfig) -> "Facts | Differences":
    """Show all that a cache's key covers; with two caches, say in words why their keys differ."""
    from cache.store import open_existing_store
    from pipeline.caches.report import describe_cache, differences, name_cache

    objects = open_existing_store(store, read_only=True)
    first = name_cache(objects, config.cache, config)
    if config.other is None:
        return describe_cache(first)
    return differences(first, name_cache(objects, config.other, config))


def _show_info(found: "Facts | Differences", as_json: bool) -> None:
    from pipeline.caches.answers import Facts
    from pipeline.caches.tables import differences_text, info_text

    text = info_text(found) if isinstance(found, Facts) else differences_text(found)
    show(asdict(found), as_json, text)


def verify(store: "AnyStore", config: VerifyConfig) -> "Checked":
    """Check every stored byte of caches and artifacts against its digest; exit 1 if any is wrong.

    Names each bad shard and image, and each artifact whose parent is not there.
    """
    from cache.store import open_existing_store
    from pipeline.caches.answers import Checked
    from pipeline.caches.report import name_caches
    from pipeline.caches.work import complete_caches, verify_all
    from pipeline.chosen import in_words
    from pipeline.kinds import JSON
    from pipeline.registry.verify import verify_artifacts, verify_some

    objects = open_existing_store(store, read_only=True)
    if not config.caches and not in_words(config):
        found = verify_all(*complete_caches(objects))
        return Checked(objects.where, found, verify_artifacts(objects))
    artifacts = [one for one in config.caches if one.partition("/")[0] in JSON]
    named = name_caches(objects, [one for one in config.caches if one not in artifacts], config)
    return Checked(objects.where, verify_all(named, {}), verify_some(objects, artifacts))


def _show_verify(found: "Checked", as_json: bool) -> None:
    from pipeline.caches.tables import verify_text

    artifacts = [asdict(one) for one in found.artifacts]
    for one in artifacts:
        one["artifact"] = one.pop("cache")
        del one["key"]
    caches = [asdict(one) for one in found.caches]
    result = {"sound": found.is_sound, "caches": caches, "artifacts": artifacts}
    show(result, as_json, verify_text(found.store, [*found.caches, *found.artifacts]))
    if not found.is_sound:
        raise typer.Exit(1)


def copy(config: CopyConfig) -> "Copies":
    """Copy complete caches to another store; what is there already is skipped.

    Every shard is checked against its digest before it is published there. Interrupted, it goes
    on when run again. A damaged cache is named and left out, and the exit code is 1. Stores are
    folders or URLs such as s3://bucket/prefix.
    """
    from cache.store import open_store
    from pipeline.caches.work import caches_to_copy, copy_all

    named, strange = caches_to_copy(config.source, config.only, config)
    return copy_all(named, strange, open_store(config.destination), config.threads)


def _show_copy(made: "Copies", as_json: bool) -> None:
    from pipeline.caches.tables import copy_text

    show(asdict(made), as_json, copy_text(made))
    if made.problems:
        raise typer.Exit(1)


def gc(store: "AnyStore", config: GcConfig) -> "Tidied":
    """Find temporaries of dead writers and files that belong to no cache; a dry run by default.

    Caches stay, complete or partial, unless one is named with --remove.
    """
    from cache.store import open_existing_store
    from pipeline.caches.work import tidy

    objects = open_existing_store(store, read_only=not config.delete)
    return tidy(objects, config.remove, config, config.grace_hours, config.delete)


def _show_gc(found: "Tidied", as_json: bool) -> None:
    from pipeline.caches.tables import gc_text

    show(asdict(found), as_json, gc_text(found))


app.command("ls")(from_config(ls, _show_ls))
app.command("info")(from_config(info, _show_info))
app.command("verify")(from_config(verify, _show_verify))
app.command("copy")(from_config(copy, _show_copy))
app.command("gc")(from_config(gc, _show_gc))
