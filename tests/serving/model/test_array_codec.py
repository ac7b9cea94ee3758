"""Large arrays between two processes: sent once, and freed with the sender's."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from ranking.rerank.rules import Cap, Rules
from ranking.types import History, Request
from serving.model.process import array_codec
from serving.model.process.array_codec import Receiver, Sender

LONG = 100_000


def ask(allowed: np.ndarray | None, codes: np.ndarray) -> Request:
    history = History(np.arange(3, dtype=np.int32), np.zeros(3, np.int8), np.arange(3, dtype=np.int64))
    return Request(history, now=7, k=5, allowed=allowed, rules=Rules(caps=(Cap(codes, 2),)))


def test_a_message_arrives_as_it_was_sent() -> None:
    allowed, codes = np.arange(LONG) % 2 == 0, np.arange(LONG, dtype=np.int32)
    sent = [ask(allowed, codes), ask(None, codes)]
    got = Receiver().unpack(Sender().pack(("answer", sent)))
    assert got[0] == "answer"
    for before, after in zip(sent, got[1], strict=True):
        np.testing.assert_array_equal(after.history.times, before.history.times)
        np.testing.assert_array_equal(after.rules.caps[0].codes, codes)
        assert (after.now, after.k, after.explain) == (7, 5, False)
    np.testing.assert_array_equal(got[1][0].allowed, allowed)
    assert got[1][1].allowed is None


def test_a_large_array_travels_once_and_is_one_object_there() -> None:
    sender, receiver = Sender(), Receiver()
    codes = np.arange(LONG, dtype=np.int32)
    first, second = sender.pack([codes, codes]), sender.pack([codes])
    assert codes.nbytes < len(first) < codes.nbytes + 1000
    assert len(second) < 1000
    one, other = receiver.unpack(first)
    assert one is other
    assert receiver.unpack(second)[0] is one
    small = np.arange(10)
    assert receiver.unpack(sender.pack(small)) is not receiver.unpack(sender.pack(small))


def test_the_receiver_lets_go_of_what_the_sender_no_longer_has() -> None:
    sender, receiver = Sender(), Receiver()
    for number in range(20):  # ids of arrays that are gone are taken again
        mask = np.full(LONG, number % 2 == 0)
        np.testing.assert_array_equal(receiver.unpack(sender.pack(mask)), mask)
        del mask
        receiver.unpack(sender.pack("next"))
        assert not receiver._arrays
        assert not sender._numbers


def test_a_number_means_nothing_by_itself() -> None:
    with pytest.raises(pickle.UnpicklingError, match="outside"):
        array_codec._numbered(3)
