"""The token codec: refusals, and tokens of earlier releases, which stay readable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.attribution_tokens import AttributionTokens, ListOrigin
from serving.api.page_tokens import (
    ITEM_CURSOR,
    USER_CURSOR,
    decode_cursor,
    decode_shown,
    encode_cursor,
    encode_shown,
)
from serving.api.tokens import TokenCodec
from serving.core.errors import ApiError

REQUEST = b"12345678"
CODEC = TokenCodec(b"purpose", max_chars=200, key=b"key")


@given(st.binary(max_size=100))
def test_a_body_survives_the_codec_and_no_other_purpose_or_key_reads_it(body: bytes) -> None:
    token = CODEC.encode(body)
    assert CODEC.decode(token) == body
    assert replace(CODEC, purpose=b"other").decode(token) is None
    assert replace(CODEC, key=b"").decode(token) is None


def test_longer_tokens_are_refused() -> None:
    token = CODEC.encode(b"x" * 100)
    assert replace(CODEC, max_chars=len(token)).decode(token) == b"x" * 100
    assert replace(CODEC, max_chars=len(token) - 1).decode(token) is None


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.api.tokens._VERSION", b"\x02")
    token = CODEC.encode(b"body")
    assert CODEC.decode(token) == b"body"
    monkeypatch.undo()
    assert CODEC.decode(token) is None


def test_the_key_is_not_part_of_the_representation() -> None:
    assert "key" not in repr(CODEC)


def test_tokens_of_the_first_releases_stay_readable() -> None:
    shown = np.array([1, 2**32 - 1], dtype=np.uint32)
    assert encode_shown(REQUEST, shown) == "ATEyMzQ1Njc4AQAAAP____-ke-aeSV4MdA"
    assert encode_cursor(USER_CURSOR, REQUEST, "i17") == "ATEyMzQ1Njc4aTE3CY9jp013kN8"
    origin = ListOrigin("r-1", "v1", 1_700_000_000, "home", "phone", 17)
    tokens = AttributionTokens(b"secret")
    assert tokens.make(origin) == "AQDxU2URA3ItMQJ2MQRob21lBXBob25lAAAA5J6x26yAuhA"
    former = tokens.read("AQDxU2URA3ItMQJ2MQRob21lBXBob25lSDb-GEmadlM")  # made before propensities
    assert former == replace(origin, propensities=None)


@given(st.text(min_size=1, max_size=60))
def test_a_place_survives_its_token(place: str) -> None:
    assert decode_cursor(ITEM_CURSOR, encode_cursor(ITEM_CURSOR, REQUEST, place), REQUEST) == place


def test_an_empty_token_is_the_beginning() -> None:
    assert decode_cursor(USER_CURSOR, "", REQUEST) == ""
    assert decode_shown("", REQUEST).shown.tolist() == []
    assert decode_shown("", REQUEST).arms is None


def test_a_token_of_a_list_has_its_arms() -> None:
    shown = np.array([7, 2**32 - 1], dtype=np.uint32)
    for arms in ("", "layout=wide;ranking=new!", "e=" + "é" * 40):
        found = decode_shown(encode_shown(REQUEST, shown, arms), REQUEST)
        assert (found.arms, found.shown.tolist()) == (arms, [7, 2**32 - 1])
    token = encode_shown(REQUEST, shown, "ranking=new")
    with pytest.raises(ApiError, match="other parameters"):
        decode_shown(token, b"87654321")
    for damaged in (token[:-3], "B" + token[1:]):
        with pytest.raises(ApiError) as caught:
            decode_shown(damaged, REQUEST)
        assert caught.value.reason == "PAGE_TOKEN_INVALID"


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (encode_cursor(USER_CURSOR, b"87654321", "i17"), "RESUME_TOKEN_MISMATCH"),
        (encode_cursor(USER_CURSOR, REQUEST, ""), "RESUME_TOKEN_INVALID"),
        (USER_CURSOR.encode(REQUEST, b"\xff"), "RESUME_TOKEN_INVALID"),
        (USER_CURSOR.encode(b"1234", b""), "RESUME_TOKEN_INVALID"),
        (encode_shown(REQUEST, np.array([7], dtype=np.uint32)), "RESUME_TOKEN_INVALID"),
    ],
)
def test_what_is_no_place_of_the_request_is_refused(token: str, reason: str) -> None:
    with pytest.raises(ApiError) as caught:
        decode_cursor(USER_CURSOR, token, REQUEST)
    assert caught.value.reason == reason
