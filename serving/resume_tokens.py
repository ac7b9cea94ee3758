"""Resume tokens of BatchRecommend: which user a stream had come to, for the request that goes on behind them.

Users are named, not counted: while a stream is broken some are erased and others appear, and nobody must be
given two lists or none for that.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from serving.problems import Problem, invalid

_FORMAT: Final = b"\x01"
_DIGEST: Final = 8
_MAX_CHARS: Final = 2000
"""No token is longer: an id has at most 256 characters."""


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST, person=b"resume token").digest()


def encode(request_fingerprint: bytes, place: str) -> str:
    """Return the token for going on behind a place: a user's id, or a number in a list of users."""
    body = _FORMAT + request_fingerprint + place.encode()
    return base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")


def decode(token: str, request_fingerprint: bytes) -> str:
    """Return the place that a token names; empty for the beginning.

    Raises:
        Problem: the token is damaged or belongs to a request with other parameters.
    """
    if not token:
        return ""
    if len(token) > _MAX_CHARS:
        raise _damaged()
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _damaged() from None
    body, check = data[:-_DIGEST], data[-_DIGEST:]
    head = len(_FORMAT) + len(request_fingerprint)
    if len(body) <= head or not body.startswith(_FORMAT) or check != _check(body):
        raise _damaged()
    if body[len(_FORMAT) : head] != request_fingerprint:
        raise invalid(
            "resume_token",
            "belongs to a request with other parameters; only max_users may change",
            "RESUME_TOKEN_MISMATCH",
        )
    try:
        return body[head:].decode()
    except UnicodeDecodeError:
        raise _damaged() from None


def _damaged() -> Problem:
    return invalid(
        "resume_token", "not a token of this service; pass resume_token unchanged", "RESUME_TOKEN_INVALID"
    )
