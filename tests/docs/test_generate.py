"""The generated reference pages are current and complete, and say what the code says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest

from conf.checks import at_least, require
from docs.generate import api, settings
from docs.generate.__main__ import pages
from docs.generate.hook import targets
from shelfwise_client.v1 import recommendations_pb2 as pb

ROOT = Path(__file__).parents[2]


class Colour(Enum):
    red = "red"
    blue = "blue"


@dataclass(frozen=True)
class Inner:
    """What is inside."""

    share: float = 0.5
    """A share."""

    def __post_init__(self) -> None:
        require(0 <= self.share <= 1, "outer.inner.share must lie in 0..1")


@dataclass(frozen=True)
class Outer:
    """What is outside."""

    count: int = 2
    """How many,
    in two lines."""
    names: list[str] = field(default_factory=lambda: ["a", "b"])
    colour: Colour | None = None
    """A | B."""
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        at_least(2, self, "outer.", "count")


def test_the_committed_pages_are_current() -> None:
    stale = [path.name for path, text in pages().items() if not path.is_file() or path.read_text() != text]
    assert stale == [], "run: python -m docs.generate"


def test_a_setting_has_its_type_default_range_and_docstring() -> None:
    found = list(settings.sections(Outer(), "outer."))
    assert [(prefix, text) for prefix, text, _ in found] == [
        ("outer.", "What is outside."), ("outer.inner.", "What is inside."),
    ]  # fmt: skip
    rows = [row for _, _, rows in found for row in rows]
    assert rows == [
        settings.Setting("outer.count", "whole number", "2", "2 or more", "How many, in two lines."),
        settings.Setting("outer.names", "list of text", "[a, b]", "", ""),
        settings.Setting("outer.colour", "`red`, `blue`, null", "null", "", "A | B."),
        settings.Setting("outer.inner.share", "number", "0.5", "in 0..1", "A share."),
    ]


def test_every_setting_of_every_command_is_explained() -> None:
    silent = [
        row.key
        for _, _, config in settings.documented()
        for _, _, rows in settings.sections(config)
        for row in rows
        if not row.description
    ]
    assert silent == []


def test_a_pipe_in_a_docstring_stays_in_its_cell() -> None:
    row = settings.Setting("key", "text", "a", "", "A | B.")
    assert settings._table([row]).splitlines()[2] == "| `key` | text | `a` | | A \\| B. |"


def test_every_rpc_message_and_field_of_the_interface_is_in_the_reference() -> None:
    text = api.page()
    headings = set(re.findall(r"^### (\S+)$", text, re.MULTILINE))
    service = pb.DESCRIPTOR.services_by_name["RecommendationService"]
    assert {method.name for method in service.methods} <= headings
    assert set(pb.DESCRIPTOR.message_types_by_name) <= headings
    for name, message in pb.DESCRIPTOR.message_types_by_name.items():
        section = re.split(r"^### ", text.split(f"\n### {name}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
        rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (.+) \|$", section, re.MULTILINE)
        assert [row for row, _ in rows] == [f.name for f in message.fields]
        assert all(meaning.strip() for _, meaning in rows), name


@pytest.mark.parametrize(
    "row",
    [
        "| `max_items` | int32 | Required. 1 to 2,000. |",
        "| `items` | list of [RecommendedItem](#recommendeditem) | The list, best first. |",
        "| `surfaces` | map of string to [SurfaceDefaults](#surfacedefaults) |",
        "| `hour` | optional int32 |",
    ],
)
def test_a_field_has_its_type_and_comment(row: str) -> None:
    assert row in api.page()


def test_links_out_of_the_folder_are_found_and_others_are_not() -> None:
    text = "[a](../benchmarks/results.md#x) [b](data.md) [c](https://example.org/LICENSE) [d](../nowhere.md)"
    assert targets(text, "docs/training.md") == {"benchmarks/results.md"}
