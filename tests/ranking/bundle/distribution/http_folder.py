"""A web server of a folder that answers range requests, and counts and holds them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class HttpFolder:
    """Serves a folder in a thread; use it as a context manager."""

    def __init__(self, folder: Path, ranges: bool = True) -> None:
        self.asked: list[tuple[str, int, int]] = []
        """Path, first byte and end of every range that was answered."""
        self.before: Callable[[str, int], None] = lambda path, start: None
        """Called before a request is answered; may change or hold something."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._answer(self, folder, ranges)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> HttpFolder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def parts_of(self, name: str) -> list[int]:
        """Return the first bytes of the parts of a file that were asked for, in order."""
        return sorted(start for path, start, _ in self.asked if path.endswith(f"/{name}"))

    def _answer(self, request: BaseHTTPRequestHandler, folder: Path, ranges: bool) -> None:
        path = folder / request.path.lstrip("/")
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        start = int(found[1]) if found and ranges else 0
        self.before(request.path, start)
        if not path.is_file():
            request.send_error(404)
            return
        content = path.read_bytes()
        end = int(found[2]) + 1 if found and ranges else len(content)
        body = content[start:end]
        if found:
            self.asked.append((request.path, start, end))
        request.send_response(206 if found and ranges else 200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        try:
            request.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            return  # the reader was killed


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
