"""Attribution tokens: what a list says about itself, for the events that shoppers cause on it.

The server keeps nothing about the lists that it gave. The token carries it through the storefront and back,
so that an event knows its list even days later, on another replica, under another model.

With a secret in the environment variable SHELFWISE_TOKEN_KEY (the same on every replica) tokens are signed,
and nobody else can make one. Without it the check finds damage only: whoever may record events could record
invented ones anyway.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import struct
from dataclasses import dataclass
from typing import Final

KEY_ENV: Final = "SHELFWISE_TOKEN_KEY"
MAX_CHARS: Final = 1024
"""No token is longer."""
_HEAD: Final = struct.Struct("<BIB")  # format, Unix seconds, hour
_FORMAT: Final = 1
_NO_HOUR: Final = 255
_CHECK: Final = 8
_TEXTS: Final = 4


@dataclass(frozen=True)
class ListOrigin:
    """Which list it was."""

    request_id: str
    model_version: str
    time: int
    """Unix seconds at which it was made."""
    surface: str = ""
    device: str = ""
    hour: int | None = None


class AttributionTokens:
    """Makes tokens and reads them."""

    def __init__(self, key: bytes | None = None) -> None:
        """Use a key; None takes that of the environment."""
        secret = os.environ.get(KEY_ENV, "").encode() if key is None else key
        self._key = hashlib.blake2b(secret, digest_size=32).digest()

    def make(self, origin: ListOrigin) -> str:
        """Return the token of a list."""
        hour = _NO_HOUR if origin.hour is None else origin.hour
        body = _HEAD.pack(_FORMAT, origin.time, hour)
        for text in (origin.request_id, origin.model_version, origin.surface, origin.device):
            data = text.encode()[:255]
            body += bytes((len(data),)) + data
        return base64.urlsafe_b64encode(body + self._check(body)).decode().rstrip("=")

    def read(self, token: str) -> ListOrigin | None:
        """Return what a token says; None for one that this service did not make."""
        if len(token) > MAX_CHARS:
            return None
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        body, check = data[:-_CHECK], data[-_CHECK:]
        # Compared as they are: eight bytes that can be tried against the server only by recording events.
        if len(body) < _HEAD.size + _TEXTS or check != self._check(body):
            return None
        form, seconds, hour = _HEAD.unpack_from(body)
        texts, at = [], _HEAD.size
        try:
            for _ in range(_TEXTS):
                length = body[at]
                texts.append(body[at + 1 : at + 1 + length].decode())
                at += 1 + length
        except (IndexError, UnicodeDecodeError):
            return None
        if form != _FORMAT or at != len(body) or 23 < hour < _NO_HOUR:
            return None
        request_id, version, surface, device = texts
        return ListOrigin(request_id, version, seconds, surface, device, None if hour == _NO_HOUR else hour)

    def _check(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, digest_size=_CHECK, key=self._key, person=b"attribution").digest()
