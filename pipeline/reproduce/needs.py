"""Which caches a table or figure needs, and the commands that make those that are missing."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from cache.find import choose_cache
from cache.objects import Objects
from manifests.problems import Layout
from pipeline.backbones.spec import slug
from pipeline.configs import ReproduceConfig
from spg_core.errors import IncompleteCache, NotInStore


@dataclass(frozen=True)
class Need:
    """One cache: a dataset by a backbone, and its key where the user named one."""

    dataset: str
    backbone: str
    key: str | None = None


def both_datasets(config: ReproduceConfig) -> list[Need]:
    """Give the caches of both directions."""
    return [
        Need(config.aux, config.backbone, config.aux_key),
        Need(config.target, config.backbone, config.target_key),
    ]


def require_caches(store: Objects, needs: Sequence[Need], store_name: str) -> None:
    """Refuse to start before every cache is complete.

    Args:
        store: where they should be.
        needs: what is needed.
        store_name: the store as the user typed it, for the commands.

    Raises: NotInStore that names every missing or partial cache and the command that makes it,
        StoreError where several are meant.
    """
    problems, commands = [], []
    for need in needs:
        try:
            # several complete ones are refused here, not after hours of fitting
            choose_cache(store, need.dataset, slug(need.backbone), need.key)
            continue
        except IncompleteCache:
            state = "is only partly written"
        except NotInStore:
            state = "is missing"
        key = f" with key {need.key}" if need.key else ""
        problems.append(f"{need.dataset} by {need.backbone}{key} {state}")
        commands.append(f"  {extract_command(need, store_name)}")
    if problems:
        raise NotInStore(
            f"{store.where} lacks what this needs: {'; '.join(problems)}. Make it, then run this "
            "again; DIR is the folder of the images, LAYOUT one of "
            f"{', '.join(get_args(Layout))}, and an extraction resumes where it stopped:\n"
            + "\n".join(commands)
        )


def extract_command(need: Need, store_name: str) -> str:
    """Write the command that extracts what is needed."""
    known = need.dataset in get_args(Layout)  # its name is its layout, too
    words = ["spg-pipe", "extract", "--backbone", need.backbone]
    words += ["--dataset", need.dataset if known else "LAYOUT"]
    words += [] if known else ["--name", need.dataset]
    return shlex.join([*words, "--root", "DIR", "--store", store_name])
