"""Page tokens: stateless, checksummed, and stable while users act and models change.

A token carries a fingerprint of the request it belongs to and a four-byte hash of every item already shown.
The next page is the same question with those items excluded, so no item is shown twice even when the order
changes in between. Hashes of ids, unlike catalogue rows, mean the same under every model version.
Collisions cost little: with 2,000 of 100,000 items shown, 0.05 items are expected to be left out wrongly.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from google.protobuf.message import Message

from serving.core.errors import invalid
from serving.model.shown_items import HashArray

MAX_SHOWN: Final = 2000
"""Items that can be paged through; the token of the last page would take 11 kB."""
_FORMAT: Final = b"\x01"
_HASH: Final = np.dtype("<u4")
_DIGEST: Final = 8
_MAX_CHARS: Final = 12_000
"""No token is longer."""


def _digest(data: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST, person=purpose).digest()


def fingerprint(request: Message, changing: Sequence[str] = ("page_size", "page_token")) -> bytes:
    """Digest everything of a request but the fields that may change from one call to the next."""
    plain = type(request)()
    plain.CopyFrom(request)
    for field in changing:
        plain.ClearField(field)
    return _digest(type(request).__name__.encode() + plain.SerializeToString(deterministic=True), b"request")


def encode(request_fingerprint: bytes, shown: HashArray) -> str:
    """Return the token for the page after `shown`, or an empty string when there may be no further page."""
    if len(shown) >= MAX_SHOWN:
        return ""
    body = _FORMAT + request_fingerprint + shown.astype(_HASH, copy=False).tobytes()
    return base64.urlsafe_b64encode(body + _digest(body, b"page token")).decode().rstrip("=")


def decode(token: str, request_fingerprint: bytes) -> HashArray:
    """Return the hashes of the items already shown; none for an empty token.

    Raises:
        Problem: the token is damaged or belongs to a request with other parameters.
    """
    if not token:
        return np.zeros(0, dtype=np.uint32)
    damaged = invalid(
        "page_token", "not a token of this service; pass next_page_token unchanged", "PAGE_TOKEN_INVALID"
    )
    if len(token) > _MAX_CHARS:
        raise damaged
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise damaged from None
    body, checksum = data[:-_DIGEST], data[-_DIGEST:]
    head = len(_FORMAT) + _DIGEST
    if len(body) < head or (len(body) - head) % 4 or not body.startswith(_FORMAT):
        raise damaged
    if _digest(body, b"page token") != checksum:
        raise damaged
    if body[len(_FORMAT) : head] != request_fingerprint:
        raise invalid(
            "page_token",
            "belongs to a request with other parameters; only page_size may change between pages",
            "PAGE_TOKEN_MISMATCH",
        )
    return np.frombuffer(body[head:], dtype=_HASH).astype(np.uint32)


def seed(request_fingerprint: bytes, part: str = "") -> int:
    """Return a number for random choices that must be the same for every page of a request."""
    return int.from_bytes(_digest(request_fingerprint + part.encode(), b"seed"), "little")
