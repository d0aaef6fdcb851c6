"""A model hub on this machine, for the hub's own client: files below a folder, with its headers."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_token"


@contextmanager
def hub_of(root: Path, gated: frozenset[str] = frozenset(), commit: str = COMMIT) -> Iterator[str]:
    """Serve `root/OWNER/NAME/FILE` as repositories of a hub; give the hub's address.

    A file is announced as the hub announces a large one: its etag is the SHA-256 of its bytes. The
    repositories named in `gated` answer as before their licence is accepted, unless the
    client sends TOKEN.
    """

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            path = self._answer()
            if path is not None:
                self.wfile.write(path.read_bytes())

        def _answer(self) -> Path | None:
            repository, _, file_name = self.path.strip("/").partition("/resolve/main/")
            path = root / repository / file_name
            if repository in gated and self.headers["Authorization"] != f"Bearer {TOKEN}":
                self._refuse(401, "GatedRepo")
            elif not (root / repository).is_dir():
                self._refuse(401, "RepoNotFound")
            elif not path.is_file():
                self._refuse(404, "EntryNotFound")
            else:
                self._announce(path)
                return path
            return None

        def _announce(self, path: Path) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.send_header("ETag", f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
