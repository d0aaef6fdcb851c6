"""What a process opens for an extraction: the store, the models, and the threads around them."""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from cache.objects import Objects
from cache.writer import CacheWriter
from manifests.examine import Keep
from pipeline.backbones.load import Backbone
from pipeline.configs import ExtractConfig
from pipeline.extraction.kept import KeptInputs
from pipeline.machine import device
from pipeline.machine.cores import n_decoders


class ShardMaker:
    """The store, the models and the threads of a process; opened once."""

    def __init__(
        self, store: Objects, config: ExtractConfig, backbones: Sequence[Backbone]
    ) -> None:
        self.store, self.config, self.backbones = store, config, backbones
        self.writers: Sequence[CacheWriter] = ()
        self._of: dict[frozenset[int], list[Backbone]] = {}
        self.advance: Callable[[int], None] = lambda n_images: None
        self.ended = Event()
        self.kept: KeptInputs | None = None
        here = 1 if device.place is None else device.place.n_workers
        n_threads = n_decoders(config.decoders, backbones[0].device.type, here)
        self.decoders = ThreadPoolExecutor(n_threads) if n_threads else None
        self.model = ThreadPoolExecutor(1)

    def of(self, caches: Collection[int]) -> list[Backbone]:
        """Give the backbones that make some of the run's caches, each for their layers alone."""
        wanted = frozenset(caches)
        if wanted not in self._of:
            self._of[wanted] = self._chosen(wanted)
        return self._of[wanted]

    def _chosen(self, caches: frozenset[int]) -> list[Backbone]:
        found, first = [], 0
        for backbone in self.backbones:
            places = range(len(backbone.specs))
            if chosen := [place for place in places if first + place in caches]:
                found.append(backbone.only(chosen))
            first += len(places)
        return found

    def keep_inputs(self) -> Keep:
        """Give who keeps, for the models, what a check of the images decodes in this process."""
        specs = [spec for backbone in self.backbones for spec in backbone.specs]
        self.kept = KeptInputs(specs, device.host_bytes())
        return self.kept.keep

    def keep(self, writers: Sequence[CacheWriter]) -> Sequence[CacheWriter]:
        """Give the writers of these caches that came first: each checks the store once."""
        if [one.folder for one in writers] != [one.folder for one in self.writers]:
            self.writers = writers
        return self.writers

    def close(self) -> None:
        """Let what is under way end after the batch that is in the model."""
        self.ended.set()
        for pool in (self.decoders, self.model):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)
