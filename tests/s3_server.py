"""An S3 server for tests: moto in its own process, or the real one at $SPG_TEST_S3_ENDPOINT.

Test files import the fixture `s3_url`: the URL of an empty store, credentials in the environment.
"""

import atexit
import functools
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from datetime import timedelta

import obstore
import pytest
from obstore.store import S3Store

BUCKET = "spg-test"
START_SECONDS = 30.0


@functools.cache
def moto_endpoint() -> str:
    """Start moto on a free port of the loopback, once a test run; return its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(process.wait)
    atexit.register(process.kill)
    url = f"http://127.0.0.1:{port}"
    _wait_for(url, process)
    return url


def real_endpoint() -> str:
    """Return the endpoint of the real S3 server, or skip the test."""
    endpoint = os.environ.get("SPG_TEST_S3_ENDPOINT")
    if not endpoint:
        pytest.skip("no real S3 server: SPG_TEST_S3_ENDPOINT is not set")
    return endpoint


SERVERS = ["moto", pytest.param("real", marks=pytest.mark.s3)]
"""Parameters for a fixture that runs a test on each S3 server there is."""


@pytest.fixture(params=SERVERS)
def s3_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty store on each S3 server there is."""
    return empty_store(request.param, monkeypatch)


def empty_store(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty store on a server, the environment set up to use it."""
    match server:
        case "moto":
            environment = credentials(moto_endpoint())
        case "real":
            environment = real_credentials()
        case _:
            raise ValueError(f"server is moto or real, got {server!r}")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    make_bucket(environment, BUCKET)
    return f"s3://{BUCKET}/{uuid.uuid4()}"


def real_credentials() -> dict[str, str]:
    """Return the environment to use the real server: its keys are those in AWS_* already."""
    endpoint = real_endpoint()
    keys = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
    missing = [name for name in keys if not os.environ.get(name)]
    if missing:
        raise RuntimeError(f"SPG_TEST_S3_ENDPOINT is set, {' and '.join(missing)} must be, too")
    return credentials(endpoint, *(os.environ[name] for name in keys))


def credentials(endpoint: str, access: str = "test", secret: str = "test") -> dict[str, str]:
    """Return the environment that lets a process use the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": access,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
    }


def make_bucket(environment: Mapping[str, str], bucket: str) -> None:
    """Create a bucket; one that is there is fine. A signed PUT with an empty key does it."""
    store = S3Store(
        endpoint=environment["AWS_ENDPOINT_URL"],
        bucket=bucket,
        access_key_id=environment["AWS_ACCESS_KEY_ID"],
        secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region="us-east-1",
        client_options={"allow_http": True},
    )
    signed = obstore.sign(store, "PUT", "", timedelta(minutes=1))
    request = urllib.request.Request(signed, data=b"", method="PUT")
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise
        error.close()


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"moto ended with {process.returncode}")
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"moto did not answer within {START_SECONDS} s")
