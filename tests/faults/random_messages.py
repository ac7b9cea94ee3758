"""Random requests, valid and invalid, generated from the descriptors, so that new fields are covered."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

WORDS: Final[dict[str, list[str]]] = {
    "item_id": [*(f"i{row}" for row in range(60)), "n1", "n2", "nope"],
    "user_id": [*(f"u{number}" for number in range(60)), "stranger", "../../etc/passwd", "a\nb"],
    "event": ["purchase", "click", "view", "wishlist", ""],
    "surface": ["home", "cart", "HOME"],
    "paths": ["item_id", "score", "*", "title.x", "reasons", "attributes.price", "attributes.brand"],
    "title": ["trail boots no1", "guitar", "Ünïcode größe 靴 🥾"],
    "key": ["title", "brand", "price", "colour", "titel"],
    "filter": [
        'brand = "Acme"', "price < 20 AND price >= 1.5", 'NOT (brand IN ("Acme", "Cobalt") OR price > 40)',
        'title:"boots"', "title:*", "price < ", 'brand = "', "((((((price > 1))))))", "nope = 1", "in_stock",
        'brand:"' + "x" * 300 + '"', 'title = "\\\\\\"" OR title:"("', "price < 1e999", "price = -0",
    ],
}  # fmt: skip
"""Typical values by field name; other text fields take any of them."""
_INTEGERS: Final = (
    0,
    1,
    -1,
    2,
    20,
    127,
    500,
    1000,
    2**31 - 1,
    -(2**31),
    2**63 - 1,
    -(2**63),
    253_402_300_799,
)
_NUMBERS: Final = (
    0.0,
    -0.0,
    0.5,
    1.0,
    -1.0,
    1e-320,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
)
_TEXTS: Final = (
    "\0",
    "\ufeff",
    "\u202e",
    "é" * 300,
    "🥾" * 260,
    "\ud7ff\ue000\U0010ffff",
    " \t\n",
    "'; DROP TABLE",
    "%s%n",
)
_CODES: Final = FieldDescriptor


class Messages:
    """Generates random messages, reproducibly by seed."""

    def __init__(self, seed: int) -> None:
        """Begin a sequence from a seed."""
        self._random = random.Random(seed)
        ranges = (range(1, 0xD800), range(0xE000, 0x110000))
        self._letters = "".join(chr(self._random.choice(self._random.choice(ranges))) for _ in range(20_000))
        self.tokens: list[str] = []
        """Page tokens from responses, for matching and other requests."""
        self._usual = False
        """Whether the current message has typical values: a tenth of them do."""

    def message(self, of: Descriptor, depth: int = 0) -> Any:
        """Return a well-formed message of a type, with random values."""
        made = message_factory.GetMessageClass(of)()
        for field in of.fields:
            if self._random.random() < 0.55 if depth < 5 else 0.1:
                self._fill(made, field, depth)
        return made

    def wire(self, of: Descriptor) -> bytes:
        """Return the bytes of a random message, sometimes corrupted, or random bytes."""
        chance = self._random.random()
        if chance < 0.05:
            return self._random.randbytes(self._random.choice((0, 1, 7, 100, 5000)))
        self._usual = chance > 0.9
        data: bytes = self.message(of).SerializeToString()
        self._usual = False
        if chance < 0.2 and data:
            broken = bytearray(data)
            for _ in range(self._random.choice((1, 1, 3, 20))):
                place = self._random.randrange(len(broken))
                change = self._random.choice((self._flip, self._cut, self._repeat, self._insert))
                broken = change(broken, min(place, len(broken) - 1)) or bytearray(b"\0")
            return bytes(broken[:200_000])
        return data

    def _flip(self, data: bytearray, place: int) -> bytearray:
        data[place] ^= 1 << self._random.randrange(8)
        return data

    def _cut(self, data: bytearray, place: int) -> bytearray:
        return data[:place]

    def _repeat(self, data: bytearray, place: int) -> bytearray:
        return data[:place] + data[place : place + 50] * 3 + data[place:]

    def _insert(self, data: bytearray, place: int) -> bytearray:
        return data[:place] + bytearray(self._random.randbytes(3)) + data[place:]

    def _fill(self, made: Message, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            values = getattr(made, field.name)
            if self._usual:
                values["title"].string_value = "trail boots no2"
                return
            for _ in range(self._random.choice((0, 1, 2, 3, 4))):
                part = field.message_type.fields_by_name["value"].message_type
                assert part is not None  # maps of the service hold messages
                values[self._text("key")].CopyFrom(self.message(part, depth + 1))
            return
        if not field.is_repeated:
            self._set(made, field, depth)
            return
        count = self._random.choice((0, 1, 1, 2, 3, 5) if depth < 3 else (0, 1, 2))
        values = getattr(made, field.name)
        for _ in range(count):
            values.append(
                self._scalar(field)
                if field.message_type is None
                else self.message(field.message_type, depth + 1)
            )
        if count and self._random.random() < 0.015:
            values.extend([values[0]] * 1200)

    def _set(self, made: Message, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is None:
            setattr(made, field.name, self._scalar(field))
        elif depth < 6:
            getattr(made, field.name).CopyFrom(self.message(field.message_type, depth + 1))

    def _scalar(self, field: FieldDescriptor) -> Any:
        makers: dict[int, Callable[[], Any]] = {
            _CODES.CPPTYPE_STRING: lambda: self._text(field.name),
            _CODES.CPPTYPE_BOOL: lambda: self._random.random() < 0.5,
            _CODES.CPPTYPE_FLOAT: lambda: self._random.choice(_NUMBERS),
            _CODES.CPPTYPE_DOUBLE: lambda: self._random.choice(_NUMBERS),
            _CODES.CPPTYPE_ENUM: lambda: self._random.choice((0, 1, 2, 99)),
            _CODES.CPPTYPE_INT32: lambda: self._integer(-(2**31), 2**31 - 1),
            _CODES.CPPTYPE_INT64: lambda: self._integer(-(2**63), 2**63 - 1),
            _CODES.CPPTYPE_UINT32: lambda: self._integer(0, 2**32 - 1),
            _CODES.CPPTYPE_UINT64: lambda: self._integer(0, 2**64 - 1),
        }
        value = makers[field.cpp_type]()
        return value.encode() if field.type == _CODES.TYPE_BYTES else value

    def _integer(self, low: int, high: int) -> int:
        if self._random.random() < 0.5:
            return self._random.randrange(0, 30)
        return min(max(self._random.choice(_INTEGERS), low), high)

    def _text(self, name: str) -> str:
        chance = self._random.random()
        if name == "page_token":
            return (
                self._random.choice(self.tokens)
                if self.tokens and chance < 0.4
                else ""
                if chance < 0.9
                else "AQ"
            )
        usual = WORDS.get(name) or WORDS.get(name.removeprefix("exclude_").removesuffix("s"))
        if usual and (self._usual or chance < 0.75):
            return self._random.choice(usual)
        if name == "filter":
            parts = string.ascii_letters[:6] + "price brand=<>!():\"'`\\*,[]0123 ANDORNOTIN~é"
            return "".join(self._random.choices(parts, k=self._random.choice((1, 10, 60, 1999, 2100))))
        if chance < 0.85:
            return self._random.choice(self._random.choice(list(WORDS.values())))
        if chance < 0.95:
            return self._random.choice(_TEXTS)
        start = self._random.randrange(len(self._letters))
        return self._letters[start : start + self._random.choice((1, 40, 257, 12_000))]
