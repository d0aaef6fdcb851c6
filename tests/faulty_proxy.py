"""A proxy on the loopback that spoils chosen requests to an S3 server, for tests.

Faults:
    refuse   the connection is cut before the request reaches the server
    lose     the server does what it is asked; its answer is lost
    cut      the answer ends in the middle
    500, 503 the server is said to have failed; it never saw the request
    slow     the answer takes a while
"""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SLOW_SECONDS = 0.5

Fault = str | None
Chooser = Callable[[int, str, str], Fault]
"""(number of the request, method, path) -> what goes wrong with it."""


@contextmanager
def faulty_proxy(endpoint: str, choose: Chooser) -> Iterator[str]:
    """Run the proxy before a server; yield its URL."""
    target = urlsplit(endpoint).netloc
    numbers = iter(range(10**9))
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            with lock:
                fault = choose(next(numbers), self.command, self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.close_connection = True
            if fault == "refuse":
                return
            if fault in ("500", "503"):
                self._answer(int(fault), {}, b"")
                return
            if fault == "slow":
                time.sleep(SLOW_SECONDS)
            connection = http.client.HTTPConnection(target, timeout=30)
            try:
                # The Host header goes on as it is: the client's signature covers it.
                connection.request(self.command, self.path, body, dict(self.headers.items()))
                answer = connection.getresponse()
                data = answer.read()
            finally:
                connection.close()
            if fault == "lose":
                return
            headers = dict(answer.getheaders())
            self._answer(answer.status, headers, data, cut=fault == "cut")

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

        def _answer(
            self, status: int, headers: dict[str, str], data: bytes, cut: bool = False
        ) -> None:
            self.send_response_only(status)
            length = headers.pop("Content-Length", str(len(data)))
            for name, value in headers.items():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
