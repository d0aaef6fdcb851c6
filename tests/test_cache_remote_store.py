"""How a connection to S3 is opened: who one is, whose write it was, and how long one waits."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache import remote_objects
from cache.objects import Objects
from cache.store import open_store
from pipeline.workers.ticket import store_ticket
from spg_core.errors import NotInStore, StoreError
from tests.faulty_proxy import Fault, faulty_proxy
from tests.s3_server import BUCKET, empty_store, moto_endpoint, s3_url  # noqa: F401 - the fixture

SSO_PROFILE = """
[profile lab]
sso_session = lab
sso_account_id = 123456789011
sso_role_name = reader
region = eu-central-1
[sso-session lab]
sso_region = eu-central-1
sso_start_url = https://lab.example/start
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An AWS profile called lab in files, nothing in the environment, moto behind it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    empty_store("moto", monkeypatch)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


def test_credentials_come_from_a_process_that_a_profile_names(files: Path) -> None:
    script = files / "vault.py"
    script.write_text(
        'print(\'{"Version": 1, "AccessKeyId": "test", "SecretAccessKey": "test"}\')\n'
    )
    (files / "config").write_text(
        f"[profile lab]\nendpoint_url = {moto_endpoint()}\n"
        f"credential_process = {sys.executable} {script}\n"
    )

    store = open_store(f"s3://{BUCKET}/by-process")

    assert store.put_new("x", [b"1"])
    store.delete("x")


def test_credentials_come_from_a_role_that_a_profile_takes(files: Path) -> None:
    (files / "config").write_text(
        f"[profile base]\naws_access_key_id = test\naws_secret_access_key = test\n"
        f"[profile lab]\nendpoint_url = {moto_endpoint()}\nregion = us-east-1\n"
        "source_profile = base\nrole_arn = arn:aws:iam::123456789012:role/reader\n"
    )

    assert open_store(f"s3://{BUCKET}/by-role").folders("") == []


def test_an_sso_session_that_ended_says_how_to_log_in(files: Path) -> None:
    (files / "config").write_text(SSO_PROFILE)

    with pytest.raises(StoreError, match=r"s3://bucket/x: .*SSO Token.*; run `aws sso login`"):
        open_store("s3://bucket/x")


def test_no_credentials_at_all_say_what_to_set(files: Path) -> None:
    (files / "config").write_text("[profile lab]\nregion = us-east-1\n")

    with pytest.raises(StoreError, match="no credentials for s3://bucket/x: set AWS_ACCESS_KEY_ID"):
        open_store("s3://bucket/x")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[profile other]\n", "The config profile .lab. could not be found"),
        ("no section\n", "Unable to parse config file"),
        ("[profile lab]\naws_access_key_id = x\n", "Partial credentials"),
    ],
)
def test_wrong_aws_files_are_one_line(files: Path, config: str, message: str) -> None:
    (files / "config").write_text(config)

    with pytest.raises(StoreError, match=rf"cannot open the store s3://bucket/x: {message}"):
        open_store("s3://bucket/x")


def test_a_prefix_is_taken_as_it_is_written(s3_url: str) -> None:  # noqa: F811
    open_store(f"{s3_url}/a%20b é").put_new("x", [b"1"])

    assert open_store(s3_url).folders("") == ["a%20b é"]


@pytest.fixture
def lossy(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Objects]:  # noqa: F811
    """A store whose first answer about each object that is put gets lost."""
    seen: set[str] = set()

    def choose(_: int, method: str, path: str) -> Fault:
        lost = method == "PUT" and path not in seen
        seen.add(path)
        return "lose" if lost else None

    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"], choose) as url, monkeypatch.context() as m:
        m.setenv("AWS_ENDPOINT_URL", url)
        yield open_store(s3_url)


def test_a_writer_whose_answer_got_lost_knows_its_own_write(lossy: Objects) -> None:
    assert lossy.put_new("x", [b"ours"])
    assert not lossy.put_new("x", [b"ours"])
    assert not open_store(lossy.where).put_new("x", [b"theirs"])
    assert lossy.get("x") == b"ours"

    lossy.check_writable()
    with store_ticket(lossy) as ticket:
        assert lossy.size(ticket.probe) == len(ticket.probe)
    assert list(lossy.temporaries("")) == []


def test_a_probe_does_not_stay_when_no_answer_comes(
    s3_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def choose(_: int, method: str, path: str) -> Fault:
        return "lose" if method == "PUT" else None

    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"], choose) as url, monkeypatch.context() as m:
        m.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(StoreError, match="cannot write"):
            open_store(s3_url).check_writable()
        with pytest.raises(StoreError, match="cannot write"), store_ticket(open_store(s3_url)):
            pass

    assert list(open_store(s3_url).temporaries("")) == []


@pytest.mark.parametrize("ask", ["size", "get", "walk", "put_new", "large"])
def test_a_server_that_never_answers_is_given_up_and_named(
    monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    monkeypatch.setattr(remote_objects, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(remote_objects, "WHOLE_SECONDS", 0.6)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(32)
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }.items():
            monkeypatch.setenv(name, value)
        store = open_store("s3://bucket/x")
        requests = {
            "size": lambda: store.size("a"),
            "get": lambda: store.get("a"),
            "walk": lambda: list(store.walk("a")),
            "put_new": lambda: store.put_new("a", [b"1"]),
            "large": lambda: store.put_new("a", [bytes(1 << 24)]),
        }

        with pytest.raises(StoreError, match=r"s3://bucket/x/a: no answer for \d+ s .*AWS_ENDPO"):
            requests[ask]()


def test_an_object_without_the_id_is_not_ours(s3_url: str) -> None:  # noqa: F811
    store = open_store(s3_url)
    store.replace("x", [b"ours"])

    assert not store.put_new("x", [b"ours"])
    with pytest.raises(NotInStore):
        store.get("y")
