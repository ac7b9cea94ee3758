"""Attribution tokens: the origin of a list, sent back by the storefront with the events of that list.

The server stores nothing about returned lists. The token attributes an event to its list even days later, on
another replica, under another model.

With a secret in the environment variable SHELFWISE_TOKEN_KEY (the same on every replica) tokens are signed
and cannot be forged. Without it the checksum only detects damage: a client that may record events could
record invented ones anyway.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import Final

from serving.api.tokens import TokenCodec

KEY_ENV: Final = "SHELFWISE_TOKEN_KEY"
MAX_CHARS: Final = 1024
"""Length of the longest token."""
_HEAD: Final = struct.Struct("<IB")  # Unix seconds, hour
_NO_HOUR: Final = 255
_TEXTS: Final = 4


@dataclass(frozen=True)
class ListOrigin:
    """Where and when a list was made."""

    request_id: str
    model_version: str
    time: int
    """Unix seconds."""
    surface: str = ""
    device: str = ""
    hour: int | None = None


class AttributionTokens:
    """Encodes and decodes attribution tokens."""

    def __init__(self, key: bytes | None = None) -> None:
        """Use a key; None reads it from the environment."""
        secret = os.environ.get(KEY_ENV, "").encode() if key is None else key
        self._codec = TokenCodec(b"attribution", MAX_CHARS, hashlib.blake2b(secret, digest_size=32).digest())

    def make(self, origin: ListOrigin) -> str:
        """Return the token of a list."""
        body = _HEAD.pack(origin.time, _NO_HOUR if origin.hour is None else origin.hour)
        for text in (origin.request_id, origin.model_version, origin.surface, origin.device):
            data = text.encode()[:255]
            body += bytes((len(data),)) + data
        return self._codec.encode(body)

    def read(self, token: str) -> ListOrigin | None:
        """Return the origin in a token; None for an invalid token."""
        body = self._codec.decode(token)
        if body is None:
            return None
        texts, at = [], _HEAD.size
        try:
            seconds, hour = _HEAD.unpack_from(body)
            for _ in range(_TEXTS):
                end = at + 1 + body[at]
                texts.append(body[at + 1 : end].decode())
                at = end
        except (struct.error, IndexError, UnicodeDecodeError):
            return None
        if at != len(body) or 23 < hour < _NO_HOUR:
            return None
        request_id, version, surface, device = texts
        return ListOrigin(request_id, version, seconds, surface, device, None if hour == _NO_HOUR else hour)
