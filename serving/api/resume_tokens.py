"""Tokens that name a place in an order, for the request that goes on behind it.

They are the resume tokens of BatchRecommend, whose place is a user, and the page tokens of ListItems, whose
place is an item. Places are named, not counted: between two requests some are removed and others appear, and
nothing must come twice or be left out for that.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from serving.core.errors import invalid

_FORMAT: Final = b"\x01"
_DIGEST: Final = 8
_MAX_CHARS: Final = 2000
"""No token is longer: an id has at most 256 characters."""


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST, person=b"resume token").digest()


def encode(request_fingerprint: bytes, place: str) -> str:
    """Return the token for going on behind a place: an id, or a number in a list."""
    body = _FORMAT + request_fingerprint + place.encode()
    return base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")


def decode(token: str, request_fingerprint: bytes, field: str, may_change: str) -> str:
    """Return the place that a token names; empty for the beginning.

    Args:
        token: as received.
        request_fingerprint: of the request that it came with.
        field: the field of the request that it came in, which names the errors' reasons.
        may_change: the field that may be another one than in the request that was answered with the token.

    Raises:
        Problem: the token is damaged or belongs to a request with other parameters.
    """
    damaged = invalid(field, "not a token of this service; pass it unchanged", f"{field.upper()}_INVALID")
    if not token:
        return ""
    if len(token) > _MAX_CHARS:
        raise damaged
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise damaged from None
    body, check = data[:-_DIGEST], data[-_DIGEST:]
    head = len(_FORMAT) + len(request_fingerprint)
    if len(body) <= head or not body.startswith(_FORMAT) or check != _check(body):
        raise damaged
    if body[len(_FORMAT) : head] != request_fingerprint:
        raise invalid(
            field,
            f"belongs to a request with other parameters; only {may_change} may change",
            f"{field.upper()}_MISMATCH",
        )
    try:
        return body[head:].decode()
    except UnicodeDecodeError:
        raise damaged from None
