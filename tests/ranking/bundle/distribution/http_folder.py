"""A web server of a folder that answers range requests, and counts and holds them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.http_server import LocalServer


class HttpFolder(LocalServer):
    """Serves a folder in a thread; use it as a context manager."""

    def __init__(self, folder: Path, ranges: bool = True) -> None:
        self.asked: list[tuple[str, int, int]] = []
        """Path, first byte and end of every range that was answered."""
        self.before: Callable[[str, int], None] = lambda path, start: None
        """Called before a request is answered; may change or hold something."""
        self._folder, self._ranges = folder, ranges
        super().__init__()

    def parts_of(self, name: str) -> list[int]:
        """Return the first bytes of the parts of a file that were asked for, in order."""
        return sorted(start for path, start, _ in self.asked if path.endswith(f"/{name}"))

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Send a file, or a range of it."""
        if request.command != "GET":
            request.send_error(501)
            return
        folder, ranges = self._folder, self._ranges
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
