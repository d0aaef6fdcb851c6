"""Extract: run frozen backbones over a dataset once and keep the patch tokens of their layers.

This module asks what there is to do: it checks the images, and finds what is done already without
importing torch. The rest is `pipeline.extraction.fill`.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

from cache.objects import Objects
from manifests.build import build_manifest, fingerprint_files
from manifests.examine import Keep
from manifests.listing import Reading
from manifests.table import Manifest, manifest_from_bytes, manifest_to_bytes
from pipeline.backbones.in_parts import files_of
from pipeline.configs import ClusterConfig, ExtractConfig
from pipeline.extraction.found import ExtractedCache, found_before, remember_found
from pipeline.machine.cores import n_checkers
from pipeline.machine.memo import file_facts, fingerprint, recall, remember
from pipeline.terminal.progress import bar, say
from spg_core.errors import ConfigError, FileChanged, SpgError


@dataclass(frozen=True)
class Extraction:
    """What an extraction left in the store: a cache a backbone and layer."""

    caches: tuple[ExtractedCache, ...]

    @property
    def images(self) -> int:
        """Images of each cache."""
        return self.caches[0].images

    @property
    def state(self) -> str:
        """`extracted` where this run wrote any shard, else `found`."""
        return min(cache.state for cache in self.caches)

    @property
    def key(self) -> str:
        """The key of the only cache. Raises: ConfigError where there are several."""
        return self._only.key

    @property
    def path(self) -> str:
        """The path of the only cache. Raises: ConfigError where there are several."""
        return self._only.path

    @property
    def _only(self) -> ExtractedCache:
        if len(self.caches) > 1:
            raise ConfigError(f"{len(self.caches)} caches were extracted; each is one of `caches`")
        return self.caches[0]


def extract(
    store: Objects, config: ExtractConfig, cluster: ClusterConfig | None = None
) -> Extraction:
    """Make the token caches that a config asks for, or find them done.

    Interrupted, it keeps every whole shard, and the next call goes on from there. What comes out
    does not depend on `cluster`.

    Raises: DatasetError, BackboneError, StoreError, ClusterError: what is wrong and what to do.
    """
    where = cluster or ClusterConfig()
    files = _listing(config)
    asked = _asked(config, files)
    # With which weights the workers of a scheduler would do it, they alone can tell.
    found = found_before(store, config, asked) if where.scheduler is None else None
    if found is not None:
        return Extraction(tuple(found))
    # This imports torch and the model libraries.
    from pipeline.extraction.fill import fill_caches

    try:
        filled = fill_caches(store, config, where, partial(checked_manifest, config, files=files))
    except FileChanged as change:
        say(f"remark: {str(change).partition('; ')[0]}; all images are looked at again")
        filled = fill_caches(store, config, where, partial(checked_manifest, config, anew=True))
        asked = _asked(config, _listing(config))
    made = [
        ExtractedCache(
            backbone=one.spec.name,
            layer=one.spec.layer,
            key=one.key,
            path=one.path,
            images=one.n_images,
            state="extracted" if one.n_shards else "found",
        )
        for one in filled
    ]
    remember_found(store, config, asked, made)
    return Extraction(tuple(made))


def checked_manifest(
    config: ExtractConfig,
    keep: Keep | None = None,
    *,
    anew: bool = False,
    files: str | None = None,
) -> Manifest:
    """Give the manifest of a dataset, decoding every file once unless nothing changed since.

    What is decoded is given to `keep`. `anew` decodes them in any case: a file was found to be
    another than is remembered. `files` is the digest of their listing, where it was just made.
    """
    asked = fingerprint(
        {
            "files": files or _listing(config),
            "dataset": config.name or config.dataset,
            "exif": config.exif,
            "thumbnails": config.thumbnails,
        }
    )
    remembered = (None, None) if anew else (recall("manifests", asked), recall("warnings", asked))
    if remembered[0] is not None and remembered[1] is not None:
        try:
            manifest = manifest_from_bytes(remembered[0], "the remembered manifest")
            _warn(json.loads(remembered[1]))
            return manifest
        except (SpgError, ValueError, TypeError, RecursionError):
            pass  # a memo that cannot be read is as good as none
    with _counting("Checking images") as progress:
        built = build_manifest(
            Path(config.root),
            layout=config.dataset,
            dataset=config.name or config.dataset,
            split=config.split,
            workers=n_checkers(config.decoders),
            progress=progress,
            thumbnails=config.thumbnails,
            exif=config.exif,
            reading=_reading(config),
            announce=say,
            keep=keep,
        )
    _warn(built.warnings)
    remember("warnings", asked, json.dumps(built.warnings).encode())
    remember("manifests", asked, manifest_to_bytes(built.manifest))
    return built.manifest


def _warn(warnings: list[str] | tuple[str, ...]) -> None:
    for warning in warnings:
        say(f"warning: {warning}")


@contextmanager
def _counting(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar for a function that reports (done, total)."""
    with bar(description, total=1) as advance:
        done_before = 0

        def progress(done: int, total: int) -> None:
            nonlocal done_before
            advance(done - done_before, total=total)
            done_before = done

        yield progress


def _reading(config: ExtractConfig) -> Reading:
    return Reading(**{field.name: getattr(config, field.name) for field in fields(Reading)})


def _listing(config: ExtractConfig) -> str:
    return fingerprint_files(Path(config.root), config.dataset, config.split, _reading(config))


def _asked(config: ExtractConfig, files: str) -> str:
    """Digest what is asked of listed files without reading a single image."""
    named = [config.weights_of(name) for name in config.backbone]
    weights = [[file_facts(one) for one in files_of(file)] if file else [] for file in named]
    asked = {name: value for name, value in asdict(config).items() if name not in _NOT_ASKED}
    return fingerprint({"files": files, "weights": weights, **asked})


_NOT_ASKED = {"root", "weights", "batch_size", "decoders"}
