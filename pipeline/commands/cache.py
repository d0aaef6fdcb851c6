"""`spg-pipe cache`: look at, check, copy and tidy the token caches of a store."""

from typing import Annotated

import typer

from pipeline.commands.options import DEFAULT_STORE, Debug, Json, Store, show

app = typer.Typer(
    name="cache", no_args_is_help=True, help="Look at, check, copy and tidy the token caches."
)

_NAME = "A key or its start, dataset/backbone/key or a start of it, or a path."


@app.command("ls")
def ls(store: Store = DEFAULT_STORE, as_json: Json = False, debug: Debug = False) -> None:
    """List the caches of a store: state, images, size, and which SAEs, guides and scores use them.

    A cache is partial until its last shard and its record are written; `extract` goes on with it.
    What is damaged or no cache is named below; `cache verify` checks every byte.
    """
    from cache.store import open_existing_store
    from pipeline.caches.report import listing
    from pipeline.caches.tables import listing_text

    objects = open_existing_store(store, read_only=True)
    found = listing(objects)
    show(found, as_json, "" if as_json else listing_text(found))


@app.command("info")
def info(
    cache: Annotated[str, typer.Argument(help=_NAME)],
    other: Annotated[
        str | None, typer.Argument(help="A second cache: say why the two keys differ.")
    ] = None,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show all that a cache's key covers; with two caches, say in words why their keys differ."""
    from cache.store import open_existing_store
    from pipeline.caches.report import describe_cache, differences, name_cache
    from pipeline.caches.tables import differences_text, info_text

    objects = open_existing_store(store, read_only=True)
    first = name_cache(objects, cache)
    if other is None:
        found = describe_cache(first)
        show(found, as_json, info_text(found))
        return
    second = name_cache(objects, other)
    sentences = differences(first, second)
    result = {"caches": [first.where, second.where], "differences": sentences}
    show(result, as_json, differences_text(first.where, second.where, sentences))


@app.command("verify")
def verify(
    caches: Annotated[
        list[str] | None, typer.Argument(help=f"{_NAME} All complete caches if none is given.")
    ] = None,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check every stored byte against its digest; name each bad shard and image; exit 1 if any."""
    from cache.store import open_existing_store
    from pipeline.caches.report import name_cache
    from pipeline.caches.tables import verify_text
    from pipeline.caches.work import complete_caches, verify_all

    objects = open_existing_store(store, read_only=True)
    if caches:
        reports = verify_all([name_cache(objects, one) for one in caches], {})
    else:
        reports = verify_all(*complete_caches(objects))
    sound = all(not report["problems"] for report in reports)
    show({"sound": sound, "caches": reports}, as_json, verify_text(objects.where, reports))
    if not sound:
        raise typer.Exit(1)


@app.command("copy")
def copy(
    source: Annotated[
        str, typer.Argument(help="Store to copy from, or the path of one cache in it.")
    ],
    destination: Annotated[str, typer.Argument(help="Store to copy to; made if it is not there.")],
    only: Annotated[
        list[str] | None, typer.Option(help=f"{_NAME} All complete caches if not given.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Shards on their way at a time.", min=1)] = 4,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Copy complete caches to another store; what is there already is skipped.

    Every shard is checked against its digest before it is published there. Interrupted, it goes
    on when run again. A damaged cache is named and left out, and the exit code is 1. Stores are
    folders or URLs such as s3://bucket/prefix.
    """
    from cache.store import open_store
    from pipeline.caches.tables import copy_text
    from pipeline.caches.work import caches_to_copy, copy_all

    named, strange = caches_to_copy(source, only or [])
    target = open_store(destination)
    copied, damaged = copy_all(named, target, threads)
    problems = [{"object": name, "problem": text} for name, text in (strange | damaged).items()]
    result = {"store": target.where, "copied": copied, "problems": problems}
    show(result, as_json, copy_text(result))
    if problems:
        raise typer.Exit(1)


@app.command("gc")
def gc(
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete; otherwise only say what would go.")
    ] = False,
    remove: Annotated[
        list[str] | None, typer.Option(help=f"Also remove this whole cache. {_NAME}")
    ] = None,
    grace_hours: Annotated[
        float,
        typer.Option(help="Younger leftovers may belong to a living writer and stay.", min=0.0),
    ] = 24.0,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Find temporaries of dead writers and files that belong to no cache; a dry run by default.

    Caches stay, complete or partial, unless one is named with --remove.
    """
    from cache.store import open_existing_store
    from pipeline.caches.tables import gc_text
    from pipeline.caches.work import tidy

    objects = open_existing_store(store, read_only=not delete)
    result = tidy(objects, remove or [], grace_hours, delete)
    show(result, as_json, gc_text(objects.where, result))
