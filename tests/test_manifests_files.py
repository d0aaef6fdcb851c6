"""Files that are no plain files, or larger than any picture."""

import os
from pathlib import Path

import pytest

from manifests.files import MAX_FILE_BYTES, read_bytes
from manifests.images import load_mask, open_image
from spg_core.errors import DatasetError


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")

    with pytest.raises(DatasetError, match=r"pipe\.png: a pipe; expected a regular file"):
        open_image(tmp_path / "pipe.png")


def test_a_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zero.png").symlink_to("/dev/zero")

    with pytest.raises(DatasetError, match="a device or socket; expected a regular file"):
        load_mask(tmp_path / "zero.png", str(tmp_path / "zero.png"))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot be read \(Is a directory\)"):
        read_bytes(tmp_path)


@pytest.mark.parametrize("size_bytes", [4 << 30, MAX_FILE_BYTES + 1])
def test_a_sparse_file_is_refused_before_it_is_read(tmp_path: Path, size_bytes: int) -> None:
    with (tmp_path / "sparse.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(size_bytes)

    with pytest.raises(DatasetError, match=f"{size_bytes} bytes are more than the limit of"):
        read_bytes(tmp_path / "sparse.png")


@pytest.mark.parametrize("name", ["gone.png", "x" * 300 + ".png", "zero\0byte.png"])
def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=r"png: cannot be read \("):
        read_bytes(tmp_path / name)


def test_an_error_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        read_bytes(tmp_path / "\x1b[31m\udcff.png")

    assert str(caught.value).isprintable()
    assert "\\x1b[31m\\udcff.png" in str(caught.value)
