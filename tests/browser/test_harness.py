"""The checks of the harness find what they look for, where it is planted."""

from __future__ import annotations

import socket

import pytest
from selenium.common.exceptions import WebDriverException

from tests.browser.harness import Reader


def plant(reader: Reader, script: str) -> None:
    reader.open("/")
    reader.check()
    reader.driver.execute_script(script)


def test_a_picture_without_a_name_is_found(reader: Reader) -> None:
    plant(
        reader, "const i = document.createElement('img'); i.src = '/static/icon.svg'; document.body.append(i)"
    )
    with pytest.raises(AssertionError, match="image-alt"):
        reader.check()


def test_a_text_without_contrast_is_found_in_the_scheme_that_has_it(reader: Reader) -> None:
    plant(reader, "document.querySelector('h1').style.color = '#f0f0f0'")
    with pytest.raises(AssertionError, match="color-contrast"):
        reader.check()
    reader.scheme("dark")
    reader.check()


def test_a_page_wider_than_the_screen_is_found(reader: Reader) -> None:
    reader.size(390)
    plant(reader, "document.querySelector('h1').style.width = '600px'")
    with pytest.raises(AssertionError, match=r"px wide on a screen of 390 px"):
        reader.check()


def test_a_message_of_the_console_is_found(reader: Reader) -> None:
    plant(reader, "setTimeout(() => { throw new Error('planted') }, 0)")
    found: list[str] = []

    def said() -> bool:
        try:
            reader.check()
        except AssertionError as error:
            found.append(str(error))
        return bool(found)

    reader.wait(said)
    assert "planted" in found[0]


def test_a_request_to_another_host_is_found(reader: Reader) -> None:
    reader.open("/")
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"http://127.0.0.1:{other.getsockname()[1]}/"
    with pytest.raises(WebDriverException, match="ERR_CONNECTION_REFUSED"):
        reader.driver.get(address)
    with pytest.raises(AssertionError, match=f"asks .*{address}"):
        reader._check_requests()
