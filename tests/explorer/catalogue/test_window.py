from __future__ import annotations

import struct

import numpy as np
import pytest

from explorer.catalogue.window import NARROWEST, Window, packed, sample
from explorer.problems import PageError


def test_a_window_is_read_from_the_address() -> None:
    assert Window.of({}) == Window(0.5, 0.5, 1.0)
    assert Window.of({"x": "0.25", "y": " .75 ", "w": "0.1", "q": "mug"}) == Window(0.25, 0.75, 0.1)


@pytest.mark.parametrize("values", [{"x": "left"}, {"y": "-0.1"}, {"w": "0"}, {"w": "2"}, {"x": "nan"}])
def test_a_wrong_value_is_named(values: dict[str, str]) -> None:
    (name,) = values
    with pytest.raises(PageError, match=f"^{name}: "):
        Window.of(values)


def test_moves_stay_on_the_map() -> None:
    whole = Window()
    assert whole.moved(right=0.25) == whole
    closer = whole.moved(zoom=0.5)
    assert closer == Window(0.5, 0.5, 0.5)
    assert closer.moved(right=0.25) == Window(0.625, 0.5, 0.5)
    assert closer.moved(right=1, down=-1) == Window(0.75, 0.25, 0.5)
    assert Window(0.9, 0.9, 0.1).moved(zoom=100) == whole
    assert Window(0.5, 0.5, NARROWEST).moved(zoom=0.5).width == NARROWEST


def test_what_lies_in_a_window() -> None:
    positions = np.array([[0, 0], [0.25, 0.25], [0.5, 0.25], [0.51, 0.25], [0.25, 0.51]], dtype=np.float32)
    assert Window(0.25, 0.25, 0.5).inside(positions).tolist() == [True, True, True, False, False]
    assert Window().inside(positions).all()


def test_a_sample_of_a_part_holds_that_of_the_whole() -> None:
    rows = np.arange(1000, dtype=np.int32)
    drawn = sample(rows, 100)
    assert len(drawn) == 100
    assert np.array_equal(drawn, np.sort(drawn))
    assert np.array_equal(drawn, sample(rows, 100))
    assert np.array_equal(sample(rows[:50], 100), rows[:50])
    part = rows[rows % 2 == 0]
    assert set(drawn[drawn % 2 == 0]) <= set(sample(part, 100))
    assert 20 < (drawn < 500).sum() < 80, "even"


def test_points_in_bytes() -> None:
    positions = np.array([[0, 1], [0.5, 0.25], [1, 0]], dtype=np.float32)
    content = packed(np.array([0, 2], dtype=np.int32), positions, np.array([7, 8, 9], dtype=np.uint8), 3)
    assert content == struct.pack("<IIIIHHHHBB", 2, 3, 0, 2, 0, 65_535, 65_535, 0, 7, 9)
