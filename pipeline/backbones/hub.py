"""The model hub: a repository's weights as a local file, from the hub's cache or downloaded.

What the hub's cache gives is a link below `snapshots/`; it is never resolved, since the file it
points to, below `blobs/`, has a digest for a name.
"""

import errno
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.backbones.digest import sha256_of_file
from pipeline.machine.memo import fingerprint, recall, remember
from spg_core.errors import BackboneError

_KIND = "hub"


def hub_file(repository: str, file_names: Sequence[str], *, name: str) -> Path:
    """Give the local path of a hub repository's weights, downloading them if they are not cached.

    Args:
        repository: `owner/model` on the hub.
        file_names: candidates, best first.
        name: the backbone as the user typed it, for the message.

    Raises:
        BackboneError: neither the hub's cache nor the hub gives any of the files, or not the bytes
            that the hub has.
    """
    remember(_KIND, _asked(name), json.dumps([repository, *file_names]).encode())
    # The cache is asked first, so a filled cache works offline and needs no time-out.
    found = _cached(repository, file_names) or _downloaded(repository, file_names)
    if isinstance(found, Path):
        _require_blob(found)
        return found
    raise BackboneError(
        f"the weights of {name} cannot be had: {_reason(repository, file_names, found)}; give a "
        f"file with --weights FILE, fill the hub's cache (HF_HOME) on a connected machine, or "
        f"name a mirror in HF_ENDPOINT{_LOGIN.get(repository.partition('.')[0], '')}"
    ) from found


def _require_blob(path: Path) -> None:
    """Refuse a file whose blob has not the SHA-256 that it is called by.

    The hub's client looks at the size of a download alone, and never again at what is cached.
    """
    blob = path.resolve()
    if blob.parent.name != "blobs" or not re.fullmatch("[0-9a-f]{64}", blob.name):
        return  # copied where there are no links, or a small file called by another digest
    if blob.stat().st_size == 0 or sha256_of_file(path) != blob.name:
        raise BackboneError(
            f"{path} in the hub's cache is damaged: it does not have the SHA-256 that the hub "
            f"gave; delete {blob} and run again, which downloads it, or give a file that you trust "
            "with --weights"
        )


def cached_weights(name: str) -> Path | None:
    """Give what the hub's cache has now for a backbone that was loaded from the hub before.

    None where it has none, or the backbone never was; its model library is not imported.
    """
    try:
        repository, *file_names = map(str, json.loads(recall(_KIND, _asked(name)) or b""))
        return _cached(repository, file_names)
    except (ValueError, TypeError, RecursionError):
        return None  # a memo that cannot be read is as good as none


def _asked(name: str) -> str:
    return fingerprint({"backbone": name})


def _cached(repository: str, file_names: Sequence[str]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for file_name in file_names:
        # What cannot be read, such as a torn `refs/main`, is not cached.
        with suppress(OSError, ValueError):
            cached = try_to_load_from_cache(repository, file_name)
            if isinstance(cached, str):
                return Path(cached)
    return None


def _downloaded(repository: str, file_names: Sequence[str]) -> Path | Exception | None:
    """Download the first file that is there; give the last error where none is."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        EntryNotFoundError,
        HTTPError,  # of whichever HTTP library this version of the hub's client uses
        LocalEntryNotFoundError,  # the hub went away meanwhile; an EntryNotFoundError, too
    )

    last: Exception | None = None
    for file_name in file_names:
        try:
            # One plain request first: without a network hf_hub_download retries for 20 seconds.
            get_hf_file_metadata(hf_hub_url(repository, file_name))
            return Path(hf_hub_download(repository, file_name))
        except LocalEntryNotFoundError as error:
            return error
        except EntryNotFoundError as error:
            last = error
        except (HTTPError, OSError, ValueError) as error:
            return error
    return last


_DINOV3_LOGIN = (
    " (timm's copy of DINOv3 needs no login; only Meta's own asks you to accept its licence)"
)
_LOGIN = {
    f"timm/vit_{size}_patch16_dinov3": _DINOV3_LOGIN
    for size in ("small", "small_plus", "base", "large", "huge_plus", "7b")
}


def _reason(repository: str, file_names: Sequence[str], error: Exception | None) -> str:
    """Say in words why the hub gave nothing."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    hub, cache = constants.ENDPOINT, constants.HF_HUB_CACHE
    match error:
        case GatedRepoError():
            return (
                f"hub repository {repository} is gated: accept its licence at {hub}/{repository} "
                "and log in (`hf auth login`)"
            )
        case RepositoryNotFoundError():
            return f"{hub} has no open repository {repository}; a private one needs a login"
        case EntryNotFoundError() if not isinstance(error, LocalEntryNotFoundError):
            return f"hub repository {repository} holds none of {', '.join(file_names)}"
        case OfflineModeIsEnabled() if (there := _unnamed(repository, file_names)) is not None:
            return (
                f"the hub's cache has of {repository} no reference main, but {there}: give that "
                "with --weights if it is the one"
            )
        case OfflineModeIsEnabled():
            return (
                f"hub repository {repository} is not in the hub's cache {cache}, and "
                "HF_HUB_OFFLINE forbids to ask the hub"
            )
        case OSError() if error.errno in _CANNOT_WRITE:
            return f"the hub's cache {cache} cannot be written ({error.strerror})"
        case _:
            return (
                f"hub repository {repository} is neither cached nor reachable at {hub} "
                f"({' '.join(str(error).split())[:200] or type(error).__name__})"
            )


def _unnamed(repository: str, file_names: Sequence[str]) -> Path | None:
    """Find a file of a snapshot that was had by its commit, so that no reference names it."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}", "snapshots")
    found = (file for name in file_names for file in sorted(folder.glob(f"*/{name}")))
    return next((file for file in found if file.is_file()), None)


_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def first_line(error: BaseException | None) -> str:
    """Give the first line of an error's message, at most 200 characters, or the error's type."""
    lines = str(error).strip().splitlines() if error else []
    return lines[0][:200] if lines else type(error).__name__
