"""Product feeds in XML."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.composition.compose import compose_command
from conf.errors import InputError
from features.files.feed_xml import read_feed
from tests.features.conftest import Shop

FEED = Path(__file__).parents[2] / "data" / "merchant_feed" / "feed.xml"
BOMB = """<?xml version="1.0"?>
<!DOCTYPE rss [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<rss><channel><item><id>1</id><title>&b;</title></item></channel></rss>
"""


def test_products_become_rows_of_text() -> None:
    feed = read_feed(str(FEED))
    assert feed.select("id", "title", "price", "shipping_price", "color").rows() == [
        ("TV-55", 'TV 55" flat', "1299.00 EUR", "4.90 EUR", None),
        ("BOOT-38", "Rubber boots", "39.90 EUR", None, "green"),
    ]
    assert feed["description"][0] == 'A television, <b>"smart"</b> & flat.'
    assert (
        feed["additional_image_link"][0]
        == "https://shop.example.org/tv2.jpg, https://shop.example.org/tv3.jpg"
    )


def test_the_feeds_own_names_win_and_equal_values_count_once(shop: Shop) -> None:
    path = shop.write(
        "feed.xml",
        '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><title>Shop</title>'
        '<entry><title>Boots</title><title>Boots</title><link href="https://shop.example.org/1"/>'
        "<g:id>1</g:id><g:size>38</g:size><g:size>39</g:size></entry></feed>",
    )
    assert read_feed(path).rows(named=True) == [
        {"title": "Boots", "link": "https://shop.example.org/1", "id": "1", "size": "38, 39"}
    ]


def test_a_namespaced_field_replaces_the_plain_one(shop: Shop) -> None:
    path = shop.write(
        "feed.xml",
        '<rss xmlns:g="http://base.google.com/ns/1.0"><channel><item>'
        "<title>short</title><g:title>Long title</g:title>"
        "<description>plain</description></item></channel></rss>",
    )
    assert read_feed(path).rows() == [("Long title", "plain")]


def test_attributes_of_a_product_are_fields(shop: Shop) -> None:
    path = shop.write(
        "feed.xml", '<catalog><offers><offer id="7"><name>Hat</name></offer></offers></catalog>'
    )
    assert read_feed(path).rows(named=True) == [{"id": "7", "name": "Hat"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "it declares the entity 'a'"),
        ("<rss><channel><item><id>1</id></item>", "no well-formed XML: no element found: line 1"),
        (
            "<rss><channel><title>Shop</title></channel></rss>",
            "no product in it; expected elements such as <item>",
        ),
    ],
)
def test_what_is_no_feed_is_refused_in_one_line(text: str, message: str, shop: Shop) -> None:
    path = shop.write("feed.xml", text)
    with pytest.raises(InputError, match=message) as error:
        shop.prepare(compose_command("prepare", ["data=merchant_feed", f"data.items={path}"]).data)
    assert "\n" not in str(error.value)
    assert path in str(error.value)


def test_an_external_entity_is_not_fetched(shop: Shop) -> None:
    secret = shop.write("secret.txt", "secret")
    path = shop.write(
        "feed.xml", f'<!DOCTYPE r [<!ENTITY x SYSTEM "file://{secret}">]><r><item><id>&x;</id></item></r>'
    )
    with pytest.raises(InputError, match="it declares the entity 'x'"):
        read_feed(path)
