"""Which weights file a backbone is loaded from: given by name or digest, or remembered."""

import dataclasses
import hashlib

import pytest

from pipeline.backbones.load import load_backbone
from pipeline.backbones.places import known_place, remember_place
from pipeline.prediction.model import Specs, files_of
from spg_core.errors import ConfigError


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def files(tmp_path):
    """Two weights files, by the name of their backbone."""
    made = {"timm:a": tmp_path / "a=1.safetensors", "timm:b": tmp_path / "b.safetensors"}
    for name, path in made.items():
        path.write_bytes(name.encode())
    return made


@pytest.fixture
def specs(files):
    """Two backbones, the first at two input sizes."""
    gabor = load_backbone("gabor", image_size=96).spec
    a, b = (
        dataclasses.replace(gabor, name=name, weights_sha256=sha256(name.encode()))
        for name in files
    )
    return Specs(((a,), (dataclasses.replace(a, height=112, width=112),), (b,)), ())


def test_files_go_to_their_backbones_by_name_and_by_digest(specs, files):
    a, b = map(str, files.values())

    assert files_of(specs, []) == [None, None, None]
    assert files_of(specs, [f"timm:b={b}"]) == [None, None, b]
    assert files_of(specs, [b, f"timm:a={a}"]) == [a, a, b]
    assert files_of(specs, [b, a]) == [a, a, b]


def test_the_one_file_of_one_backbone_needs_no_name(specs, files):
    one = Specs(specs.backbones[:2], ())
    other = str(files["timm:b"])

    # whether it is the right one is told when it is loaded
    assert files_of(one, [other]) == [other, other]
    assert files_of(one, [f"timm:a={other}"]) == [other, other]


def test_files_that_fit_nothing_are_refused(specs, files, tmp_path):
    stranger = tmp_path / "stranger.pt"
    stranger.write_bytes(b"stranger")

    with pytest.raises(ConfigError, match=r"gone\.pt: no such file"):
        files_of(specs, ["timm:a=gone.pt"])
    with pytest.raises(ConfigError, match="which none of timm:a, timm:b was fitted with"):
        files_of(specs, [str(stranger)])
    with pytest.raises(ConfigError, match=r"gives timm:a .*a=1\.safetensors and .*stranger\.pt"):
        files_of(specs, [f"timm:a={files['timm:a']}", f"timm:a={stranger}"])


def test_a_file_is_remembered_as_long_as_it_has_the_digest(tmp_path):
    file, digest = tmp_path / "w.pt", sha256(b"one")
    file.write_bytes(b"one")

    assert known_place(digest) is None
    remember_place(digest, file)
    assert known_place(digest) == file
    file.write_bytes(b"two")
    assert known_place(digest) is None
    file.unlink()
    assert known_place(digest) is None


def test_of_two_copies_the_last_one_is_meant(tmp_path):
    digest = sha256(b"copies")
    for name in ("first.pt", "second.pt"):
        (tmp_path / name).write_bytes(b"copies")
        remember_place(digest, tmp_path / name)

    assert known_place(digest) == tmp_path / "second.pt"
