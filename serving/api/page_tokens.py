"""Tokens of the next page: by the items already shown, or by a cursor in an order.

Lists (`encode_shown`) carry a four-byte hash of every item already shown. The next page answers the same
request with those items excluded, so no item is shown twice even when the order changes in between. Hashes
of ids, unlike catalogue rows, mean the same under every model version. Collisions cost little: with 2,000
of 100,000 items shown, 0.05 items are expected to be left out wrongly.

Orders (`encode_cursor`) are users of BatchRecommend and items of ListItems. Their cursor is an id, not an
offset: additions and removals between two requests neither repeat nor skip an entry.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from serving.api.tokens import RequestTokens, TokenCodec
from serving.model.shown_items import HashArray

MAX_SHOWN: Final = 2000
"""Items that can be paged through; the token of the last page would take 11 kB."""
_HASH: Final = np.dtype("<u4")
_SHOWN: Final = RequestTokens(TokenCodec(b"page token", max_chars=12_000))
_CURSORS: Final = TokenCodec(b"resume token", max_chars=2_000)  # an id has at most 256 characters
ITEM_CURSOR: Final = RequestTokens(_CURSORS)
USER_CURSOR: Final = RequestTokens(_CURSORS, "resume_token", "max_users")


def encode_shown(request_fingerprint: bytes, shown: HashArray) -> str:
    """Return the token for the page after `shown`, or an empty string when there may be no further page."""
    if len(shown) >= MAX_SHOWN:
        return ""
    return _SHOWN.encode(request_fingerprint, shown.astype(_HASH, copy=False).tobytes())


def decode_shown(token: str, request_fingerprint: bytes) -> HashArray:
    """Return the hashes of the items already shown; none for an empty token.

    Raises:
        ApiError: the token is damaged or belongs to a request with other parameters.
    """
    body = _SHOWN.decode(token, request_fingerprint) if token else b""
    if len(body) % _HASH.itemsize:
        raise _SHOWN.damaged()
    return np.frombuffer(body, dtype=_HASH).astype(np.uint32)


def encode_cursor(tokens: RequestTokens, request_fingerprint: bytes, cursor: str) -> str:
    """Return the token for continuing after a cursor: an id, or an index in a list."""
    return tokens.encode(request_fingerprint, cursor.encode())


def decode_cursor(tokens: RequestTokens, token: str, request_fingerprint: bytes) -> str:
    """Return the cursor to continue after; empty, for an empty token, is the beginning.

    Raises:
        ApiError: the token is damaged or belongs to a request with other parameters.
    """
    if not token:
        return ""
    body = tokens.decode(token, request_fingerprint)
    try:
        cursor = body.decode()
    except UnicodeDecodeError:
        raise tokens.damaged() from None
    if not cursor:
        raise tokens.damaged()
    return cursor
