"""`spg-pipe cache` tells what is there and what is wrong, and removes only what is named."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cache.find import find_caches, survey
from cache.layout import shard_name
from cache.store import open_store
from pipeline.artifacts import save_artifact
from pipeline.artifacts.documents import SaeParents
from pipeline.artifacts.terms import CacheParent
from pipeline.caches.report import listing, name_cache
from pipeline.cli import app
from pipeline.extraction import shards as heavy
from pipeline.extraction.extract import extract
from pipeline.inputs import open_dataset
from spg_core.errors import ConfigError, IncompleteCache, NotInStore, StoreError
from tests.artifact_samples import guides_document, guides_tensors, sae_document, sae_tensors
from tests.cache_samples import flip_byte, folder_digests, make_sample, write_cache
from tests.tiny_images import config_of, tiny_backbone, write_images

DAY = 24 * 3600
SAE = "nuts-gabor-c4-00000001"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with the caches `nuts` (70 images) and `few` (5), and an SAE that used `nuts`."""
    place = tmp_path_factory.mktemp("cache_command")
    store = open_store(place / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heavy, "open_backbone", tiny_backbone)
        for name, n_good in (("nuts", 60), ("few", 3)):
            write_images(place / name, n_good=n_good, n_bad=10 if name == "nuts" else 2, side=24)
            extract(store, replace(config_of(place / name), name=name))
    key = find_caches(store, "nuts")[0].key
    parents = SaeParents(cache=CacheParent(dataset="nuts", backbone="gabor", key=key))
    save_artifact(store, replace(sae_document(SAE), parents=parents), sae_tensors())
    return store


@pytest.fixture
def store(made, tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(made.where, tmp_path / "store")
    return open_store(tmp_path / "store")


def cache(*arguments, code=0):
    result = CliRunner().invoke(app, ["cache", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def cache_json(*arguments, code=0):
    return json.loads(cache(*arguments, "--json", code=code))


def folder_of(store, dataset):
    return find_caches(store, dataset)[0].folder


def make_partial(store, dataset):
    """Take the record away and leave one receipt, as an extraction does that was cut."""
    folder = Path(store.where) / folder_of(store, dataset)
    (folder / "cache.json").unlink()
    (folder / "receipts").mkdir()
    (folder / "receipts/00000.json").write_text("{}")


def test_a_short_last_shard_counts_as_short(store):
    make_partial(store, "nuts")
    receipts = Path(store.where) / folder_of(store, "nuts") / "receipts"
    (receipts / "00000.json").rename(receipts / "00001.json")

    rows = {row["dataset"]: row for row in cache_json("ls", "--store", store.where)["caches"]}

    assert (rows["nuts"]["state"], rows["nuts"]["images"], rows["nuts"]["of"]) == ("partial", 6, 70)


def test_ls_shows_size_state_images_and_users(store):
    make_partial(store, "few")

    rows = {row["dataset"]: row for row in cache_json("ls", "--store", store.where)["caches"]}

    nuts, few = rows["nuts"], rows["few"]
    assert (nuts["state"], nuts["images"], nuts["of"]) == ("complete", 70, 70)
    files = list((Path(store.where) / folder_of(store, "nuts")).rglob("*"))
    assert nuts["bytes"] == sum(path.stat().st_size for path in files if path.is_file())
    assert nuts["used_by"] == ["SAE nuts-gabor-c4-00000001"]
    assert (few["state"], few["images"], few["of"], few["used_by"]) == ("partial", 5, 5, [])
    text = cache("ls", "--store", store.where)
    assert nuts["key"] in text
    assert "SAE nuts-gabor-c4-00000001" in text


WRONG = [7, [], {}, "nuts", {"key": 7}, {"key": None}, {"key": "0"}, {"cache": {}}]
TORN = [b"", b"[" * 200_000, b'{"parents": NaN}', b"\xff", b'{"parents": {"cache": {"key"']


def used_by(store, document: bytes):
    store.replace(f"saes/{SAE}/sae.json", [document])
    return [list(one.used_by) for one in listing(store).caches if one.dataset == "nuts"]


def test_users_are_known_by_documents_of_any_version_and_torn_ones_are_passed_over(store):
    cache = {"key": find_caches(store, "nuts")[0].key}
    sound = {"parents": {"cache": cache}, "format": 99}

    assert used_by(store, json.dumps(sound).encode()) == [["SAE nuts-gabor-c4-00000001"]]
    for name in ("parents", "fitted_on"):
        for wrong in WRONG:
            assert used_by(store, json.dumps(sound | {name: wrong}).encode()) == [[]]
    assert [used_by(store, torn) for torn in TORN] == [[[]]] * len(TORN)


def test_ls_calls_an_edited_record_damaged_and_lists_the_rest(store):
    path = Path(store.where) / folder_of(store, "nuts") / "cache.json"
    path.write_text(path.read_text().replace('"float16"', '"float32"'))

    rows = cache_json("ls", "--store", store.where)["caches"]

    assert {row["dataset"]: row["state"] for row in rows} == {"few": "complete", "nuts": "damaged"}


def test_looking_at_an_empty_store(tmp_path):
    assert "no caches in" in cache("ls", "--store", tmp_path)
    assert "nothing to remove" in cache("gc", "--store", tmp_path)
    hint = f"no caches in {tmp_path}; `spg-pipe extract` makes them"
    assert cache("verify", "--store", tmp_path).strip() == hint
    assert cache("ls", "--store", tmp_path).strip() == hint
    assert cache_json("verify", "--store", tmp_path) == {
        "sound": True,
        "caches": [],
        "artifacts": [],
    }


def test_a_store_with_only_partial_caches_has_nothing_to_verify(store):
    make_partial(store, "nuts")
    make_partial(store, "few")

    with pytest.raises(NotInStore, match="no complete cache in"):
        cache("verify", "--store", store.where)


@pytest.mark.parametrize("command", ["ls", "gc", "verify", "info x", "copy STORE elsewhere"])
def test_a_mistyped_store_is_refused_and_not_made(tmp_path, command):
    store = tmp_path / "mistyped"
    words = command.replace("STORE", str(store)).split()

    with pytest.raises(NotInStore, match="mistyped, there is no such folder"):
        cache(*words, *([] if words[0] == "copy" else ["--store", store]))

    assert not store.exists()


def test_info_shows_all_that_the_key_covers(made):
    found = cache_json("info", "nuts", "--store", made.where)

    covers = open_dataset(made, "nuts", "gabor").cache.covers
    assert found["covers"] == covers
    assert (found["images"], found["shards"]) == (70, 2)
    text = cache("info", found["key"][:6], "--store", made.where)
    for name in covers["backbone"]:
        assert f"backbone.{name}" in text
    assert covers["images"]["sha256"] in text


def test_info_of_two_says_in_words_why_the_keys_differ(made, tmp_path):
    write_images(tmp_path / "nuts", n_good=60, n_bad=10, side=24)
    other = open_store(tmp_path / "other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heavy, "open_backbone", tiny_backbone)
        larger = extract(other, replace(config_of(tmp_path / "nuts", image_size=48), name="nuts"))

    sizes = cache_json("info", "nuts", larger.path, "--store", made.where)["differences"]
    images = cache_json("info", "nuts", "few", "--store", made.where)["differences"]

    assert "backbone.height is 32 in one and 48 in the other" in sizes
    assert not any("image" in sentence for sentence in sizes)
    assert "images.count is 70 in one and 5 in the other" in images
    assert any(s.startswith("67 images are only in the first: nut/test/") for s in images)
    assert any(s.startswith("2 images are only in the second: nut/test/") for s in images)
    assert "nothing differs" in cache("info", "few", "few", "--store", made.where)


def test_info_compares_caches_whose_keys_cover_what_we_do_not_know(store):
    for name in ("a", "b"):
        write_cache(store, make_sample(), covers={"made": {"by": name}})
    first, second = (one.key for one in find_caches(store, "visa"))

    found = cache_json("info", first, second, "--store", store.where)

    assert len(found["differences"]) == 1
    assert "made.by" in found["differences"][0]


def test_info_of_a_partial_cache_says_what_to_do(store):
    make_partial(store, "few")

    with pytest.raises(IncompleteCache, match=r"only partly written.* run the extraction again"):
        cache("info", "few", "--store", store.where)


def test_verify_is_quiet_about_sound_caches(made):
    found = cache_json("verify", "--store", made.where)

    assert found["sound"]
    assert [one["problems"] for one in found["caches"]] == [[], []]
    assert found["caches"][0]["bytes"] > 0
    assert cache("verify", "few", "--store", made.where).count("sound") == 1


def test_verify_names_every_bad_shard_and_image_and_exits_1(store):
    folder = Path(store.where) / folder_of(store, "nuts")
    item = 2 * 2 * 3 * 2  # bytes of an image's tokens
    flip_byte(folder / shard_name("tokens", 0), 5 * item)
    flip_byte(folder / shard_name("tokens", 0), 9 * item)
    (folder / shard_name("masks", 1)).unlink()
    paths = open_dataset(store, "nuts", "gabor").manifest.column("image_path")

    found = cache_json("verify", "--store", store.where, code=1)

    assert not found["sound"]
    problems = {one["cache"].split("/")[1]: one["problems"] for one in found["caches"]}
    assert problems["few"] == []
    tokens, masks = sorted(problems["nuts"], key=lambda problem: len(problem["rows"]))
    assert tokens["object"].endswith(shard_name("tokens", 0))
    assert (tokens["rows"], tokens["images"]) == ([5, 9], [paths[5], paths[9]])
    assert masks["problem"] == "is missing"
    assert masks["images"] == paths[64:70]
    text = cache("verify", "nuts", "--store", store.where, code=1)
    assert paths[5] in text
    assert paths[69] in text


def test_verify_checks_artifacts_and_what_they_stand_on(store):
    save_artifact(store, guides_document(), guides_tensors())
    body = Path(store.where) / f"saes/{SAE}/sae.safetensors"
    flip_byte(body, body.stat().st_size - 40)
    store.replace(f"saes/{SAE}/threshold.json", [b"{"])
    (Path(store.where) / "scores/torn-00000000").mkdir(parents=True)
    (Path(store.where) / "scores/torn-00000000/metrics.json").write_bytes(b"{")

    found = cache_json("verify", "--store", store.where, code=1)
    text = cache("verify", f"saes/{SAE}", "--store", store.where, code=1)

    assert [one["problems"] for one in found["caches"]] == [[], []]
    told = {
        one["artifact"]: [each["problem"] for each in one["problems"]] for one in found["artifacts"]
    }
    [digest, note] = told[f"saes/{SAE}"]
    assert "is not the file its JSON was written for" in digest
    assert "threshold.json is not JSON" in note
    [missing] = told["guides/nuts-tiny-c4-k2-00000002"]
    assert "stands on saes/nuts-tiny-c4-k2-00000001, which is not in" in missing
    assert len(told["scores/torn-00000000"]) == 1
    assert "2 problem(s)" in text
    assert "guides" not in text


def test_verify_goes_on_after_a_torn_record(store):
    path = Path(store.where) / folder_of(store, "few") / "cache.json"
    path.write_text(path.read_text()[:100])

    found = cache_json("verify", "--store", store.where, code=1)

    few, nuts = found["caches"]
    assert "cache.json" in few["problems"][0]["problem"]
    assert nuts["problems"] == []


def test_copy_is_the_same_and_skips_what_is_there(made, tmp_path):
    first = cache_json("copy", made.where, tmp_path / "b")
    second = cache_json("copy", made.where, tmp_path / "b")

    assert [one["copied_shards"] for one in first["copied"]] == [1, 2]
    assert [one["copied_shards"] for one in second["copied"]] == [0, 0]
    assert [one["present_shards"] for one in second["copied"]] == [1, 2]
    tokens = Path(made.where) / "tokens"
    assert folder_digests(tmp_path / "b/tokens") == folder_digests(tokens)
    assert cache_json("verify", "--store", tmp_path / "b")["sound"]


def test_a_small_copy_is_counted_in_kilobytes(made, tmp_path):
    ended = CliRunner().invoke(app, ["cache", "copy", made.where, str(tmp_path / "b")])

    n_bytes = sum(one.size_bytes for one in survey(open_store(made.where)).caches)
    assert 10**3 < n_bytes < 10**7
    assert f"Copying kB: {n_bytes // 1000} of {n_bytes // 1000} in " in ended.stderr


def test_copy_takes_one_cache_by_name_or_by_path(made, tmp_path):
    cache("copy", made.where, tmp_path / "b", "--only", "few")
    cache("copy", f"{made.where}/{folder_of(made, 'nuts')}", tmp_path / "c")

    assert [info.dataset for info in find_caches(open_store(tmp_path / "b"))] == ["few"]
    assert [info.dataset for info in find_caches(open_store(tmp_path / "c"))] == ["nuts"]
    with pytest.raises(StoreError, match="names one cache already"):
        cache("copy", f"{made.where}/tokens/few", tmp_path / "d", "--only", "few")


def test_gc_only_tells_until_asked_to_delete(store):
    folder = Path(store.where) / folder_of(store, "nuts")
    (folder / ".tmp-1234").write_bytes(b"12345")
    (folder / "notes.txt").write_bytes(b"123")
    before = folder_digests(Path(store.where))

    kept = cache_json("gc", "--store", store.where)
    told = cache_json("gc", "--store", store.where, "--grace-hours", 0)
    assert folder_digests(Path(store.where)) == before
    gone = cache_json("gc", "--store", store.where, "--grace-hours", 0, "--delete")

    assert kept["objects"] == []
    assert (told["deleted"], told["bytes"]) == (False, 8)
    assert (gone["deleted"], gone["objects"]) == (True, told["objects"])
    assert not (folder / ".tmp-1234").exists()
    assert not (folder / "notes.txt").exists()
    assert cache_json("verify", "--store", store.where)["sound"]


def test_gc_removes_a_whole_cache_only_if_named(store):
    key = find_caches(store, "nuts")[0].key

    dry = cache("gc", "--remove", key, "--store", store.where)
    assert "is used by: SAE nuts-gabor-c4-00000001" in dry
    assert "add --delete to remove them" in dry
    assert len(find_caches(store)) == 2
    cache("gc", "--remove", key, "--delete", "--store", store.where)

    assert [info.dataset for info in find_caches(store)] == ["few"]


def test_hours_that_are_no_number_are_refused(made):
    for hours in ("inf", "nan", "-1"):
        with pytest.raises(ConfigError, match=f"--grace-hours is '{hours}'; it must be a number"):
            cache("gc", f"--grace-hours={hours}", "--store", made.where)


@pytest.mark.parametrize("reference", ["", "tokens/", "ffff", "nut/gabor", "a/b/c/d", "/", "//x"])
def test_a_name_that_fits_nothing_is_refused(made, reference):
    with pytest.raises(NotInStore, match="no cache"):
        name_cache(made, reference)


def test_a_name_that_fits_several_is_refused_and_whole_parts_win(store):
    whole, longer = Path(store.where) / "tokens/few", Path(store.where) / "tokens/few-more"
    shutil.copytree(whole, longer)
    key = find_caches(store, "few")[0].key

    assert name_cache(store, "few").info.dataset == "few"
    with pytest.raises(StoreError, match=r"means several caches: tokens/few/.*few-more.*type more"):
        name_cache(store, key)


NEIGHBOURS = {
    "a name that no cache can have": "tokens/C:x",
    "NaN in a record": "tokens/nan/gabor/0000000000000000",
    "infinity in a record": "tokens/inf/gabor/0000000000000001",
    "a torn record": "tokens/torn/gabor/0000000000000002",
    "a pipe for a record": "tokens/pipe/gabor/0000000000000003",
    "nested beyond reason": "tokens/nested/gabor/0000000000000004",
    "no text": "tokens/bytes/gabor/0000000000000005",
}


def add_neighbours(root):
    """What synchronisers, other programs and bad disks leave in a store."""
    contents = (None, b'{"format": 1, "a": NaN}', b'{"format": 1, "a": 1e999}', b'{"format": 1,')
    contents += (None, b"[" * 100_000, b"\xff\xfe{}")
    for folder, content in zip(NEIGHBOURS.values(), contents, strict=True):
        (root / folder).mkdir(parents=True)
        if content is not None:
            (root / folder / "cache.json").write_bytes(content)
    os.mkfifo(root / NEIGHBOURS["a pipe for a record"] / "cache.json")
    (root / "scores/torn-00000000").mkdir(parents=True)
    (root / "scores/torn-00000000/metrics.json").write_bytes(b'{"parents": {"ca')
    (root / "scores/deep-00000000").mkdir()
    (root / "scores/deep-00000000/metrics.json").write_bytes(b'{"a":' * 100_000)
    (root / "guides/list-00000000").mkdir(parents=True)
    (root / "guides/list-00000000/guides.json").write_bytes(b'{"parents": [], "fitted_on": 3}')
    os.mkfifo(root / "guides/list-00000000/sae.json")
    (root / "tokens/.DS_Store").write_bytes(b"")


def test_bad_neighbours_are_named_and_the_rest_goes_on(store, tmp_path):
    add_neighbours(Path(store.where))
    damaged = set(list(NEIGHBOURS.values())[1:])

    found = cache_json("ls", "--store", store.where)
    text = cache("ls", "--store", store.where)
    checked = cache_json("verify", "--store", store.where, code=1)
    copied = cache_json("copy", store.where, tmp_path / "b", code=1)
    garbage = cache_json("gc", "--store", store.where, "--grace-hours", 0)

    rows = {f"tokens/{r['dataset']}/{r['backbone']}/{r['key']}": r for r in found["caches"]}
    assert {row["state"] for folder, row in rows.items() if folder in damaged} == {"damaged"}
    assert all(folder in row["problem"] for folder, row in rows.items() if folder in damaged)
    assert {r["dataset"]: r["images"] for r in found["caches"] if r["state"] == "complete"} == {
        "nuts": 70,
        "few": 5,
    }
    assert [one["object"] for one in found["problems"]] == ["tokens/C:x"]
    assert all(folder in text for folder in NEIGHBOURS.values())
    told = {one["cache"] for one in checked["caches"] if one["problems"]}
    assert told == set(NEIGHBOURS.values())
    assert {one["cache"].split("/")[1] for one in checked["caches"]} >= {"nuts", "few"}
    assert {one["cache"].split("/")[1] for one in copied["copied"]} == {"nuts", "few"}
    assert {one["object"] for one in copied["problems"]} == set(NEIGHBOURS.values())
    assert garbage["objects"] == []
    assert cache("info", "nuts", "--store", store.where)


def test_foreign_receipts_are_not_counted(store):
    make_partial(store, "nuts")
    receipts = Path(store.where) / folder_of(store, "nuts") / "receipts"
    for name in ("²", "٣", "-0001", "1_000", "99999", "00000.json.part", "x"):
        (receipts / f"{name}.json").write_text("{}")

    rows = {row["dataset"]: row for row in cache_json("ls", "--store", store.where)["caches"]}

    assert (rows["nuts"]["images"], rows["nuts"]["of"]) == (64, 70)


@pytest.mark.parametrize("shape", ['["70"]', "[1e999]", "[-3]", "[true]", "{}", "3", "NaN", "[]"])
def test_a_foreign_shape_tells_nothing(store, shape):
    make_partial(store, "nuts")
    name = Path(store.where) / folder_of(store, "nuts") / "tokens.zarr/tokens/zarr.json"
    name.write_text(f'{{"shape": {shape}}}')

    rows = {row["dataset"]: row for row in cache_json("ls", "--store", store.where)["caches"]}

    assert (rows["nuts"]["images"], rows["nuts"]["of"]) == (64, None)


def test_foreign_names_cannot_command_the_terminal(store):
    root = Path(store.where)
    evil = "\x1b[2J\u202egnp\r\x07"
    (root / "tokens/few").rename(root / f"tokens/{evil}")
    (root / "tokens/C:\x1b[31m").mkdir()
    document = root / f"saes/{SAE}/sae.json"
    document.parent.rename(root / "saes" / f"{evil}\nx")

    for command in ("ls", "verify", f"info {evil}", "gc --remove nuts"):
        words = command.split(" ")
        text = cache(*words, "--store", store.where, code=int(command == "verify"))
        assert all(char.isprintable() or char == "\n" for char in text), command
        assert text.isascii() or "─" in text
    assert "\\x1b[2J\\u202egnp\\r\\x07" in cache("ls", "--store", store.where)
    assert evil in {row["dataset"] for row in cache_json("ls", "--store", store.where)["caches"]}
