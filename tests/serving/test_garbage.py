"""When Python looks for garbage."""

from __future__ import annotations

import gc
import weakref

import pytest

from serving import garbage
from serving.garbage import Replaced, look_at_all_rarely, no_collection


class Thing:
    """May hold itself."""

    itself: Thing | None = None


def test_everything_is_looked_through_rarely_and_what_is_young_as_often_as_before() -> None:
    before = gc.get_threshold()
    try:
        look_at_all_rarely()
        assert gc.get_threshold()[:2] == before[:2]
        assert gc.get_threshold()[2] > 10 * before[2]
    finally:
        gc.set_threshold(*before)


def test_what_has_been_replaced_and_holds_itself_is_freed_after_some_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gc.disable()
    thing, replaced = Thing(), Replaced()
    thing.itself = thing
    held = weakref.ref(thing)
    replaced.add(thing)
    del thing
    replaced.check()
    assert held() is not None, "somebody may still be answered by it"
    monkeypatch.setattr(garbage, "_PATIENCE_SECONDS", 0.0)
    replaced.check()
    assert held() is None


def test_what_is_still_used_is_looked_for_once_and_what_is_gone_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[None] = []
    monkeypatch.setattr(garbage, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(gc, "collect", lambda: looks.append(None))
    replaced, used = Replaced(), Thing()
    replaced.add(used)
    replaced.add(Thing())  # gone at once
    for _ in range(3):
        replaced.check()
    assert len(looks) == 1
    replaced.add(Thing())
    replaced.check()
    assert len(looks) == 1


def test_nothing_is_looked_for_while_a_model_is_loaded() -> None:
    gc.enable()  # off in tests of servers
    frozen = gc.get_freeze_count()
    with no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_who_has_switched_it_off_finds_it_off() -> None:
    gc.disable()
    with no_collection():
        pass
    assert not gc.isenabled()


def test_a_loading_that_fails_does_not_end_all_looking() -> None:
    gc.enable()
    with pytest.raises(ValueError, match="damaged"), no_collection():
        raise ValueError("damaged")
    assert gc.isenabled()
