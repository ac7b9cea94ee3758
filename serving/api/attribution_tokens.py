"""Attribution tokens: the origin of a list, sent back by the storefront with the events of that list.

The server stores nothing about returned lists. The token attributes an event to its list even days later, on
another replica, under another model.

With a secret in the environment variable SHELFWISE_TOKEN_KEY (the same on every replica) tokens are signed
and cannot be forged. Without it the checksum only detects damage: a client that may record events could
record invented ones anyway.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from dataclasses import dataclass
from typing import Final

from serving.api.tokens import TokenCodec

KEY_ENV: Final = "SHELFWISE_TOKEN_KEY"
MAX_CHARS: Final = 1536
"""Length of the longest token."""
_HEAD: Final = struct.Struct("<IB")  # Unix seconds, hour
_NO_HOUR: Final = 255
_TEXTS: Final = 4
_PAGE: Final = struct.Struct("<HB")  # items on earlier pages, number of propensities
_MOST: Final = 100
"""Most positions of a page whose propensities a token has, which keeps it within `MAX_CHARS`."""
_STEPS: Final = 2048
"""Steps per factor of two in which a propensity is rounded: at most .02 % off."""


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
    before: int = 0
    """Items on earlier pages."""
    propensities: tuple[float, ...] | None = ()
    """Of the page's first 100 items, see `ranking.rerank.slate.SlateItem`; empty: all are 1. None: unknown,
    of a token that was made before tokens had them."""
    experiments: str = ""
    """Arms that made the list, as in `serving.state.contracts.user_state.Exposure`."""

    def propensity(self, position: int) -> float | None:
        """Return the propensity of a position of the list, from 1; None where it is unknown."""
        if not self.propensities:
            return None if self.propensities is None else 1.0
        at = position - self.before - 1
        return self.propensities[at] if 0 <= at < len(self.propensities) else None


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
        if origin.propensities is None:
            return self._codec.encode(body)
        propensities = origin.propensities[:_MOST]
        body += _PAGE.pack(origin.before, len(propensities))
        steps = [min(round(-math.log2(propensity) * _STEPS), 65535) for propensity in propensities]
        body += struct.pack(f"<{len(steps)}H", *steps)
        return self._codec.encode(body + origin.experiments.encode())

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
        try:
            before, propensities, experiments = _page(body[at:])
        except (struct.error, UnicodeDecodeError):
            return None
        if 23 < hour < _NO_HOUR:
            return None
        request_id, version, surface, device = texts
        hour_of_day = None if hour == _NO_HOUR else hour
        return ListOrigin(
            request_id, version, seconds, surface, device, hour_of_day, before, propensities, experiments
        )


def _page(body: bytes) -> tuple[int, tuple[float, ...] | None, str]:
    """Return the number of items on earlier pages, the propensities (None without any), and the arms.

    Raises:
        struct.error: shorter than the head says.
        UnicodeDecodeError: the rest is no text.
    """
    if not body:
        return 0, None, ""
    before, count = _PAGE.unpack_from(body)
    steps = struct.unpack_from(f"<{count}H", body, _PAGE.size)
    experiments = body[_PAGE.size + 2 * count :].decode()
    return before, tuple(2.0 ** (-step / _STEPS) for step in steps), experiments
