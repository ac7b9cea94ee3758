"""When Python looks for garbage."""

from __future__ import annotations

import gc

import pytest

from serving.garbage import no_collection


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
