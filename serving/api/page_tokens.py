"""Tokens of the next page: by the items already shown, or by a cursor in an order.

Lists (`encode_shown`) carry a four-byte hash of every item already shown. The next page answers the same
request with those items excluded, so no item is shown twice even when the order changes in between. Hashes
of ids, unlike catalogue rows, mean the same under every model version. Collisions cost little: with 2,000
of 100,000 items shown, 0.05 items are expected to be left out wrongly.

A token also carries the arms of experiments that made the page, so that the next one is made by the same.

Orders (`encode_cursor`) are users of BatchRecommend and items of ListItems. Their cursor is an id, not an
offset: additions and removals between two requests neither repeat nor skip an entry.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from features.data.dataset import IntArray
from serving.api.tokens import RequestTokens, TokenCodec
from serving.model.served import Served
from serving.model.shown_items import HashArray, id_hash

MAX_SHOWN: Final = 2000
"""Items that can be paged through; the token of the last page would take 11 kB."""
NO_ROWS: Final = np.zeros(0, dtype=np.int32)
_HASH: Final = np.dtype("<u4")
_SHOWN: Final = RequestTokens(TokenCodec(b"page token", max_chars=12_000))
_SHOWN_IN_ARMS: Final = RequestTokens(TokenCodec(b"page token, arms", max_chars=13_000))
_LENGTH: Final = struct.Struct("<H")
_CURSORS: Final = TokenCodec(b"resume token", max_chars=2_000)  # an id has at most 256 characters
ITEM_CURSOR: Final = RequestTokens(_CURSORS)
USER_CURSOR: Final = RequestTokens(_CURSORS, "resume_token", "max_users")


@dataclass(frozen=True)
class Continued:
    """What a page token says of the pages before."""

    shown: HashArray
    """Hashes of the items already shown."""
    arms: str | None
    """Arms of experiments that made them; None for a first page."""


def encode_shown(request_fingerprint: bytes, shown: HashArray, arms: str = "") -> str:
    """Return the token for the page after `shown`, or an empty string when there may be no further page.

    Args:
        request_fingerprint: of the request.
        shown: hashes of the items on the pages so far.
        arms: of experiments, see `serving.experiments.selection.Selection.continued`.
    """
    if len(shown) >= MAX_SHOWN:
        return ""
    body = shown.astype(_HASH, copy=False).tobytes()
    if not arms:
        return _SHOWN.encode(request_fingerprint, body)
    text = arms.encode()
    return _SHOWN_IN_ARMS.encode(request_fingerprint, _LENGTH.pack(len(text)) + text + body)


def decode_shown(token: str, request_fingerprint: bytes) -> Continued:
    """Return the hashes of the items already shown, and the arms; none for an empty token.

    Raises:
        ApiError: the token is damaged or belongs to a request with other parameters.
    """
    if not token:
        return Continued(np.zeros(0, dtype=np.uint32), None)
    arms = ""
    if _SHOWN_IN_ARMS.codec.decode(token) is None:
        body = _SHOWN.decode(token, request_fingerprint)
    else:
        body = _SHOWN_IN_ARMS.decode(token, request_fingerprint)
        try:
            end = _LENGTH.size + _LENGTH.unpack_from(body)[0]
            arms, body = body[_LENGTH.size : end].decode(), body[end:]
        except (struct.error, UnicodeDecodeError):
            raise _SHOWN.damaged() from None
    if len(body) % _HASH.itemsize:
        raise _SHOWN.damaged()
    return Continued(np.frombuffer(body, dtype=_HASH).astype(np.uint32), arms)


def rows_of(served: Served, shown: HashArray) -> IntArray:
    """Return the rows of the items on earlier pages."""
    if len(shown) == 0:
        return NO_ROWS
    rows = served.shown.rows(shown).astype(np.int32)
    return rows[rows < len(served.model.catalogue)]  # items added later are unknown to this state


def next_token(
    served: Served, request_hash: bytes, shown: HashArray, rows: Sequence[int], arms: str = ""
) -> str:
    """Return the token of the page after these rows; empty without rows: the list ends here."""
    if not rows:
        return ""
    ids = served.model.catalogue.ids
    hashes = np.array([id_hash(ids[row]) for row in rows], dtype=np.uint32)
    return encode_shown(request_hash, np.concatenate([shown, hashes]), arms)


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
