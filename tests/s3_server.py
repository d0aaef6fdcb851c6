"""An S3 server for tests: moto in its own process, or the real one at $SPG_TEST_S3_ENDPOINT."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import obstore
from obstore.store import S3Store

START_SECONDS = 30.0


@contextmanager
def moto_server() -> Iterator[str]:
    """Run moto on a free port of the loopback; yield its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, process)
        yield url
    finally:
        process.kill()
        process.wait()


def credentials(endpoint: str, access: str = "test", secret: str = "test") -> dict[str, str]:
    """Return the environment that lets a process use the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": access,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
    }


def real_endpoint() -> str | None:
    """Return the endpoint of a real S3 server, None where none runs."""
    return os.environ.get("SPG_TEST_S3_ENDPOINT")


def make_bucket(endpoint: str, bucket: str) -> None:
    """Create a bucket; one that is there is fine. A signed PUT with an empty key does it."""
    store = S3Store(
        endpoint=endpoint,
        bucket=bucket,
        access_key_id="test",
        secret_access_key="test",
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
