"""A model hub on this machine that repositories can be pushed to, for the hub's own client.

It speaks what the client asks for: repos/create, revision, tree, preupload, LFS batch and PUT,
commit with `parentCommit`, resolve. Commits are kept whole; what is larger than 200 bytes goes by
LFS. Not spoken: Xet, multipart uploads, branches, pull requests, tokens.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_BYTES = 200


@dataclass
class Repository:
    """Commits from the oldest on, each a whole tree of bytes."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    head: str = ""

    def commit(self, files: dict[str, bytes]) -> str:
        self.head = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[self.head] = files
        return self.head


@dataclass
class Hub:
    """What is on the hub, what was uploaded, and what it is to refuse."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    n_uploads: int = 0
    before_commit: list[Callable[[], int | None]] = field(default_factory=list)
    """Called, one a commit, before a commit is looked at; one that gives a status refuses it."""

    def files(self, name: str) -> dict[str, bytes]:
        found = self.repositories[name]
        return found.commits[found.head]


def tree_entry(path: str, body: bytes) -> dict[str, Any]:
    sha1 = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
    entry = {"type": "file", "path": path, "size": len(body), "oid": sha1}
    if len(body) > LFS_BYTES:
        digest = hashlib.sha256(body).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(body), "pointerSize": 130}
    return entry


def upload_mode(asked: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if asked["size"] > LFS_BYTES else "regular"
    return {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False}


class Answers(BaseHTTPRequestHandler):
    """What the hub of a class of these answers."""

    hub: Hub

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        body = self._get()
        if body is not None:
            self.wfile.write(body)

    def _get(self) -> bytes | None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            parts = parts[2:]
        name, what, revision, path = "/".join(parts[:2]), parts[2], parts[3], "/".join(parts[4:])
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self._answer(404, code="RepoNotFound")
        commit = repository.head if revision == "main" else revision
        files = repository.commits[commit]
        if what == "revision":
            return self._answer(200, {"id": name, "sha": commit})
        if what == "tree":
            return self._answer(200, [tree_entry(*one) for one in files.items()])
        if path not in files:
            return self._answer(404, code="EntryNotFound", commit=commit)
        etag = hashlib.sha256(files[path]).hexdigest()
        return self._answer(200, files[path], commit=commit, etag=etag)

    def do_PUT(self) -> None:
        body = self._body()
        self.hub.blobs[hashlib.sha256(body).hexdigest()] = body
        self.hub.n_uploads += 1
        self._answer(200, b"")

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path).strip("/"), self._body()
        if path == "api/repos/create":
            self._create(json.loads(body))
        elif "/preupload/" in path:
            self._send(200, {"files": [upload_mode(one) for one in json.loads(body)["files"]]})
        elif path.endswith("info/lfs/objects/batch"):
            self._send(200, {"transfer": "basic", "objects": self._batch(json.loads(body))})
        else:
            name, _, _ = path.removeprefix("api/models/").partition("/commit/")
            self._commit(name, body)

    def _create(self, made: dict[str, Any]) -> None:
        name = f"{made.get('organization', 'user')}/{made['name']}"
        exists = name in self.hub.repositories
        if not exists:
            self.hub.repositories[name] = Repository()
            self.hub.repositories[name].commit({".gitattributes": b"x"})
        self._send(409 if exists else 200, {"url": f"{self.hub.url}/{name}"})

    def _batch(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            one
            if one["oid"] in self.hub.blobs
            else {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
            for one in asked["objects"]
        ]

    def _commit(self, name: str, body: bytes) -> None:
        repository = self.hub.repositories[name]
        status = self.hub.before_commit.pop(0)() if self.hub.before_commit else None
        lines = [json.loads(line) for line in body.splitlines()]
        parent = lines[0]["value"].get("parentCommit")
        if status or parent not in (None, repository.head):
            self._send(status or 412, {"error": "A commit has happened since."})
            return
        files = dict(repository.commits[repository.head])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        oid = repository.commit(files)
        self._send(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def _body(self) -> bytes:
        if self.headers["Transfer-Encoding"] == "chunked":
            parts = []
            while n_bytes := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(n_bytes))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        body = self._answer(status, answer)
        if body is not None:
            self.wfile.write(body)

    def _answer(self, status, content=b"", code=None, commit=None, etag=None) -> bytes | None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        named = {"X-Error-Code": code, "X-Repo-Commit": commit, "ETag": etag and f'"{etag}"'}
        for name, value in named.items():
            if value is not None:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        return body if status == 200 or body else None

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def hub_for_pushes() -> Iterator[Hub]:
    """Serve an empty hub."""
    made = Hub()

    class Handler(Answers):
        hub = made

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
