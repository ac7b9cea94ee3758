from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from conf.errors import InputError
from explorer.loading import BundleLoader, LoadingState
from explorer.problems import LoadingError, PageError


class Store:
    """A store whose versions load when the test lets them."""

    def __init__(self) -> None:
        self.current = "v1"
        self.gate = threading.Event()
        self.gate.set()
        self.damaged: set[str] = set()
        self.loads: list[str] = []

    def load(self, version: str) -> Any:
        self.loads.append(version)
        assert self.gate.wait(20)
        if version in self.damaged:
            raise InputError(f"{version}: content does not match")
        return SimpleNamespace(version=version)

    def loader(self, patience: float = 20.0) -> BundleLoader:
        return BundleLoader(lambda: self.current, self.load, patience)


def settle(loader: BundleLoader) -> None:
    assert loader._thread is not None
    loader._thread.join(20)


def test_a_page_waits_a_moment_and_then_says_that_it_is_loading() -> None:
    store = Store()
    store.gate.clear()
    loader = store.loader(patience=0.01)
    with pytest.raises(LoadingError):
        loader.current()
    assert loader.state() == LoadingState("", "v1", "")
    store.gate.set()
    settle(loader)
    assert loader.current().version == "v1"
    assert store.loads == ["v1"]


def test_a_newer_version_replaces_the_loaded_one_which_is_shown_until_then() -> None:
    store = Store()
    loader = store.loader()
    assert loader.current().version == "v1"
    store.gate.clear()
    store.current = "v2"
    assert loader.current().version == "v1"
    assert loader.state() == LoadingState("v1", "v2", "")
    store.gate.set()
    settle(loader)
    assert loader.current().version == "v2"
    assert store.loads == ["v1", "v2"]


def test_a_damaged_version_leaves_the_loaded_one_and_is_tried_once() -> None:
    store = Store()
    loader = store.loader()
    loader.current()
    store.current = "v2"
    store.damaged.add("v2")
    loader.current()
    settle(loader)
    assert [loader.current().version for _ in range(3)] == ["v1"] * 3
    assert loader.state() == LoadingState("v1", "", "v2: content does not match")
    assert store.loads == ["v1", "v2"]
    store.current = "v1"  # rolled back
    loader.current()
    assert loader.state().failed == ""


def test_without_any_version_the_reason_is_the_page() -> None:
    store = Store()
    store.damaged.add("v1")
    with pytest.raises(PageError, match="v1: content does not match"):
        store.loader().current()

    def none() -> str:
        raise InputError("CURRENT: no such file")

    with pytest.raises(PageError, match="CURRENT: no such file"):
        BundleLoader(none, store.load).current()
