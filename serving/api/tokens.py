"""The codec of every opaque token: a version, a body and a check, in URL-safe base64.

The check is a BLAKE2b hash of eight bytes over version and body. It is personalised by the purpose, so a
token of one purpose is refused for another, and keyed where a key is given (RFC 7693). Without a key it
detects damage only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import Message

from serving.core.errors import ApiError, invalid

_VERSION: Final = b"\x01"
_DIGEST: Final = 8
"""Bytes of a check, of a fingerprint and of a seed."""


def _digest(data: bytes, purpose: bytes, key: bytes = b"") -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST, person=purpose, key=key).digest()


@dataclass(frozen=True)
class TokenCodec:
    """Tokens of one purpose."""

    purpose: bytes
    """At most 16 bytes."""
    max_chars: int
    """Longer tokens are refused without being decoded."""
    key: bytes = field(default=b"", repr=False)
    """Secret of at most 64 bytes; empty: anyone can make a valid token."""

    def encode(self, body: bytes) -> str:
        """Return the token of a body."""
        data = _VERSION + body
        return base64.urlsafe_b64encode(data + _digest(data, self.purpose, self.key)).decode().rstrip("=")

    def decode(self, token: str) -> bytes | None:
        """Return the body of a token; None for one that is damaged, of another purpose or of another key."""
        if len(token) > self.max_chars:
            return None
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        signed, check = data[:-_DIGEST], data[-_DIGEST:]
        # Not in constant time: the check can be tried against the server only, and protects no secret.
        if not signed.startswith(_VERSION) or check != _digest(signed, self.purpose, self.key):
            return None
        return signed[len(_VERSION) :]


def fingerprint(request: Message, changing: Sequence[str] = ("page_size", "page_token")) -> bytes:
    """Return a digest of a request without the fields that may change from one call to the next."""
    plain = type(request)()
    plain.CopyFrom(request)
    for name in changing:
        plain.ClearField(name)
    return _digest(type(request).__name__.encode() + plain.SerializeToString(deterministic=True), b"request")


def request_seed(request_fingerprint: bytes, part: str = "") -> int:
    """Return a number for random choices that must be the same for every page of a request."""
    return int.from_bytes(_digest(request_fingerprint + part.encode(), b"seed"), "little")


@dataclass(frozen=True)
class RequestTokens:
    """Tokens that continue one request and are refused for any other."""

    codec: TokenCodec
    field: str = "page_token"
    """The request's field that carries the token; it also names the reasons of errors."""
    may_change: str = "page_size"
    """The field that may differ between the calls."""

    def encode(self, request_fingerprint: bytes, body: bytes) -> str:
        """Return the token of a body for the request."""
        return self.codec.encode(request_fingerprint + body)

    def decode(self, token: str, request_fingerprint: bytes) -> bytes:
        """Return the body of a token.

        Raises:
            ApiError: the token is damaged or belongs to a request with other parameters.
        """
        body = self.codec.decode(token)
        if body is None or len(body) < len(request_fingerprint):
            raise self.damaged()
        if not body.startswith(request_fingerprint):
            raise invalid(
                self.field,
                f"belongs to a request with other parameters; only {self.may_change} may change",
                f"{self.field.upper()}_MISMATCH",
            )
        return body[len(request_fingerprint) :]

    def damaged(self) -> ApiError:
        """Return the error for a token that this service did not issue."""
        return invalid(
            self.field, "not a token of this service; pass it unchanged", f"{self.field.upper()}_INVALID"
        )
