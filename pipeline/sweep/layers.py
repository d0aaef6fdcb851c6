"""The layers of a sweep: which are meant, the caches of each, and the points over all of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from cache.objects import Objects
from pipeline.artifacts.terms import Row
from pipeline.backbones.spec import require_same_tokens
from pipeline.chosen import chosen_key, layers_meant
from pipeline.configs import CacheWords, SweepConfig
from pipeline.fitting.tokens import require_defects
from pipeline.inputs import open_dataset
from pipeline.sweep.grid import Point
from pipeline.sweep.points import OpenSweep
from pipeline.tracking import Kind

OpenLayers = Mapping[int | None, OpenSweep]
"""The caches of each layer, from 0; of None alone where layers are not varied."""


def open_layers(store: Objects, config: SweepConfig, track: Kind | None = None) -> OpenLayers:
    """Open the auxiliary and target caches of each layer that a sweep varies.

    Raises: NotInStore, IncompleteCache, StoreError, ArtifactError, FitError, ConfigError.
    """
    layers: Iterable[int | None] = (None,)
    if config.layer:
        layers = layers_meant(store, config.aux, config.backbone, config.layer)
    return {layer: _open(store, config, layer, track) for layer in layers}


def _open(store: Objects, config: SweepConfig, layer: int | None, track: Kind | None) -> OpenSweep:
    words = CacheWords(
        layer=None if layer is None else str(layer),
        image_size=config.image_size,
        final_norm=config.final_norm,
    )
    aux, target = (
        open_dataset(
            store,
            dataset,
            config.backbone,
            chosen_key(store, dataset, config.backbone, words, key),
        )
        for dataset, key in ((config.aux, config.aux_key), (config.target, config.target_key))
    )
    require_same_tokens(
        aux.spec.covers(), target.spec.covers(), aux.cache.where, target.cache.where
    )
    require_defects(aux)
    memory = None if config.memory_gb is None else int(config.memory_gb * 1e9)
    return OpenSweep(store, aux, target, memory, track)


def over_layers(points: Sequence[Point], layers: Iterable[int | None]) -> list[Point]:
    """Give the points of a grid for each layer, layer by layer."""
    return [
        replace(point, layer=layer, axes=of_layer(point.axes, layer))
        for layer in layers
        for point in points
    ]


def of_layer(row: Row, layer: int | None) -> Row:
    """Give a row with its layer, as text: several are written `2+5`."""
    return row if layer is None else {"layer": str(layer), **row}
