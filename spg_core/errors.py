"""Everything that can go wrong for a user, as one tree.

    SpgError
    |-- ConfigError      an option has an impossible value (exit code 2)
    |   `-- OptionsDisagree  each is possible, but they do not go together
    |-- DatasetError     images, masks or lists on disk cannot be used; lists every problem at once
    |   `-- FileChanged      a file is no longer the one that was checked
    |-- BackboneError    a model or its weights cannot be had, or do not fit each other
    |-- StoreError       the store cannot do what is asked: full, read-only, no create-only writes
    |   |-- NotInStore       nothing there under that name
    |   |-- IncompleteCache  a cache that is only partly written
    |   |-- ManifestDiffers  the cache was written with other labels, splits or masks
    |   `-- CorruptStore     stored bytes are not what was written; names the file
    |-- ArtifactError    an SAE, guides or scores do not fit the cache or each other
    |-- ClusterError     Dask workers cannot be reached, cannot do the work, or keep dying
    |-- FitError         training cannot go on: non-finite loss, all-zero guide, no defects
    `-- MetricError      scores or maps that cannot be evaluated: NaN, mismatched shapes

A message says what was found, what was expected and what to do, in one line (`DatasetError` may
list several). The command line prints it without a traceback. `assert` is kept for our own bugs.
"""


class SpgError(Exception):
    """Anything a user can cause; the message is written for that user."""


class ConfigError(SpgError):
    """An option has an impossible value."""


class OptionsDisagree(ConfigError):
    """Options that are possible by themselves do not go together."""


class DatasetError(SpgError):
    """Images, masks or lists on disk cannot be used as they are."""


class FileChanged(DatasetError):
    """An image or mask is no longer the one that was checked."""


class BackboneError(SpgError):
    """A model or its weights cannot be had, or do not fit each other."""


class StoreError(SpgError):
    """The store cannot do what is asked of it."""


class NotInStore(StoreError):
    """Nothing is in the store under that name."""


class IncompleteCache(StoreError):
    """A cache is only partly written."""


class ManifestDiffers(StoreError):
    """The finished or finishing cache has another manifest: labels or splits changed since."""


class CorruptStore(StoreError):
    """Stored bytes are not what was written there."""


class ArtifactError(SpgError):
    """An SAE, guides or scores do not fit the cache or each other."""


class ClusterError(SpgError):
    """Dask workers cannot be reached, cannot do the work, or keep dying."""


class FitError(SpgError):
    """Training cannot go on."""


class MetricError(SpgError):
    """Scores or maps cannot be evaluated."""
