"""A bucket behind the protocol of S3 in a thread, whose requests can be counted, refused and cut off.

It has what a store of versions needs: objects, parts of objects, uploads in parts, lists and deletions.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.http_server import LocalServer

KEY, SECRET = "key-of-the-shop", "secret-of-the-shop"
CUT = -1
"""As a status: half of the response is sent, and the connection is closed."""
_DATE = "Sat, 01 Jun 2024 12:00:00 GMT"


class S3Server(LocalServer):
    """Serves one bucket; use it as a context manager."""

    def __init__(self, bucket: str = "shop") -> None:
        self.bucket = bucket
        self.objects: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str]] = []
        """Method, key and range of every request."""
        self.fails: Callable[[str, str, str], int] = lambda method, key, range_: 0
        """Called with these before each request; a status other than 0 is answered in its place."""
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._lock = threading.Lock()
        super().__init__()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer as S3 does."""
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        address = urlsplit(request.path)
        bucket, _, key = unquote(address.path).lstrip("/").partition("/")
        query = parse_qs(address.query, keep_blank_values=True)
        range_ = request.headers.get("Range", "")
        self.asked.append((request.command, key, range_))
        failure = self.fails(request.command, key, range_)
        if failure > 0:
            status, content = failure, _error("SlowDown" if failure == 503 else "AccessDenied", "no")
        elif f"Credential={KEY}/" not in request.headers.get("Authorization", ""):
            status, content = 403, _error("InvalidAccessKeyId", "The key does not exist in our records.")
        elif bucket != self.bucket:
            status, content = 404, _error("NoSuchBucket", "The specified bucket does not exist")
        else:
            with self._lock:
                status, content = self._carry_out(request.command, key, query, range_, body)
        request.send_response(status)
        request.send_header("Content-Length", str(len(content)))
        request.send_header("ETag", '"tag"')
        request.send_header("Last-Modified", _DATE)
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", range_)
        if status == 206 and found:
            start = int(found[1])
            whole = len(self.objects[key])
            request.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{whole}")
        request.end_headers()
        if failure == CUT:
            request.wfile.write(content[: len(content) // 2])
            request.wfile.flush()
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
        elif request.command != "HEAD":
            request.wfile.write(content)

    def _carry_out(
        self, method: str, key: str, query: dict[str, list[str]], range_: str, body: bytes
    ) -> tuple[int, bytes]:
        """Return the status and the body of the response to an authenticated request."""
        if method in ("GET", "HEAD"):
            if "list-type" in query:
                return 200, self._listed(
                    query["prefix"][0] if "prefix" in query else "", "delimiter" in query
                )
            if key not in self.objects:
                return 404, _error("NoSuchKey", "The specified key does not exist.")
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", range_)
            content = self.objects[key]
            if found is None:
                return 200, content
            if int(found[1]) >= len(content):
                return 416, _error("InvalidRange", "The requested range is not satisfiable")
            return 206, content[int(found[1]) : int(found[2]) + 1]
        if method == "PUT" and "uploadId" in query:
            self._uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
            return 200, b""
        if method == "PUT":
            self.objects[key] = body
            return 200, b""
        if method == "DELETE":
            self.objects.pop(key, None)
            return 204, b""
        if "uploads" in query:
            upload = f"upload-{len(self._uploads)}"
            self._uploads[upload] = {}
            return 200, f"<R><UploadId>{upload}</UploadId></R>".encode()
        if "uploadId" in query:
            parts = self._uploads.pop(query["uploadId"][0])
            self.objects[key] = b"".join(parts[number] for number in sorted(parts))
            return 200, b"<CompleteMultipartUploadResult><ETag>tag</ETag></CompleteMultipartUploadResult>"
        assert "delete" in query
        gone = re.findall(r"<Key>([^<]*)</Key>", body.decode())
        for name in gone:
            self.objects.pop(name, None)
        deleted = "".join(f"<Deleted><Key>{escape(name)}</Key></Deleted>" for name in gone)
        return 200, f"<DeleteResult>{deleted}</DeleteResult>".encode()

    def _listed(self, prefix: str, folders: bool) -> bytes:
        lines, seen = [], set()
        for key, content in sorted(self.objects.items()):
            inner = key.removeprefix(prefix)
            if not key.startswith(prefix):
                continue
            if folders and "/" in inner:
                seen.add(f"{prefix}{inner.partition('/')[0]}/")
            else:
                lines.append(
                    f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size><ETag>tag</ETag>"
                    "<LastModified>2024-06-01T12:00:00.000Z</LastModified></Contents>"
                )
        lines += [
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(seen)
        ]
        return f"<ListBucketResult>{''.join(lines)}</ListBucketResult>".encode()


def _error(code: str, message: str) -> bytes:
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    body = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>r</RequestId></Error>"
    return f"{head}{body}".encode()
