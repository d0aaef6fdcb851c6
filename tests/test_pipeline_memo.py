import pytest

from pipeline.machine import memo


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_what_is_remembered_is_recalled():
    memo.remember("keys", "abc", b"1")

    assert memo.recall("keys", "abc") == b"1"
    assert memo.recall("keys", "abd") is None
    assert memo.recall("manifests", "abc") is None


def test_a_fingerprint_follows_every_fact_and_the_versions(monkeypatch):
    before = memo.fingerprint({"a": 1})

    assert memo.fingerprint({"a": 1}) == before
    assert memo.fingerprint({"a": 2}) != before
    monkeypatch.setattr(memo, "version_of", lambda name: "0.0")
    assert memo.fingerprint({"a": 1}) != before


def test_a_file_is_known_by_size_and_time(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"1")
    before = memo.file_facts(path)

    path.write_bytes(b"12")

    assert memo.file_facts(path) != before
    assert memo.file_facts(None) == []
    assert memo.file_facts(tmp_path / "missing") == [str(tmp_path / "missing")]


def test_a_folder_that_cannot_be_written_is_no_error(folder):
    (folder / "spg-pipe").write_text("a file is in the way")

    memo.remember("keys", "abc", b"1")

    assert memo.recall("keys", "abc") is None
