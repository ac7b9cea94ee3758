"""The storefront as a shopper uses it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.harness import ROOT, Reader
from tests.explorer.storefront.test_guard import until
from tests.processes import children, runs

UNAVAILABLE = "the server responded with a status of 503"


def listed(reader: Reader) -> list[str | None]:
    return [item.get_attribute("data-item") for item in reader.all("#for-you [data-item]")]


def shop(reader: Reader, path: str) -> None:
    """Open the shop, and wait until it is there: the page loads itself again once its server runs."""
    reader.open(path)
    reader.wait(lambda: reader.all("#for-you .item"))


def press(reader: Reader, selector: str) -> None:
    """Press a button of the shop, and wait until the list beside it has been replaced."""
    before = reader.one("#for-you")
    reader.one(selector).click()
    reader.wait(lambda: reader.one("#for-you") != before)


def test_five_clicks_and_a_purchase_change_the_list_and_leave_reasons(reader: Reader) -> None:
    shop(reader, "/storefront")
    page = reader.one("html")
    first = listed(reader)
    assert len(first) == 12
    assert len(reader.all("#shop [data-item]")) == 24
    for number in range(5):
        press(reader, f"#for-you .item:nth-child({2 * number + 1}) button[value^=click]")
        assert reader.text("h1#product")
    press(reader, "#for-you .item button[value^=buy]")
    assert reader.one("html") == page, "the page was loaded again"
    assert "products so far: 5 clicked, 1 bought" in reader.text(".who")
    now = listed(reader)
    assert now != first
    assert "By the last action:" in reader.text("#for-you [role=status]")
    assert reader.all("#for-you [data-change=new], #for-you [data-change=up], #for-you [data-change=down]")
    reasons = [text for text in reader.texts("#for-you .reasons") if text != "no reason that holds"]
    assert any("Goes with" in text or "Similar to" in text for text in reasons)
    assert reader.path.count("did=click") == 5
    assert reader.path.count("did=buy") == 1
    reader.check()
    address = reader.path
    reader.check_everywhere(address)
    assert listed(reader) == now


def test_back_shows_the_page_before_the_action(reader: Reader) -> None:
    shop(reader, "/storefront?visit=0000bbbb")
    before = listed(reader)
    press(reader, "#shop .shelf button[value^=click]")
    assert listed(reader) != before
    reader.driver.back()
    reader.wait(lambda: "did=" not in reader.path and len(listed(reader)) == 12)
    assert listed(reader) == before


def test_the_keyboard_alone_does_it(reader: Reader) -> None:
    shop(reader, "/storefront")
    button = reader.one("#for-you .item button[value^=cart]")
    reader.driver.execute_script("arguments[0].focus()", button)
    name = button.get_attribute("id")
    before = reader.one("#for-you")
    reader.press(Keys.ENTER)
    reader.wait(lambda: reader.one("#for-you") != before)
    assert "1 put into the cart" in reader.text(".who")
    assert reader.focused.get_attribute("id") in (name, "", None)
    reader.check()


def test_search_filters_and_intent(reader: Reader) -> None:
    shop(reader, "/storefront")
    reader.one("input[name=q]").send_keys("guitar drum")
    reader.submit("form[role=search] button")
    assert reader.text("h1") == "Found for “guitar drum”"
    titles = reader.texts("#shop .shelf .title")
    assert "guitar" in titles[0] or "drum" in titles[0]
    reader.check()
    shop(reader, "/storefront?f.brand=Acme")
    assert 0 < len(reader.all("#shop [data-item]")) < 60
    reader.one("#for-you input[name=intent]").send_keys("crib blanket")
    reader.submit("#for-you form button")
    assert "for “crib blanket”" in reader.text("#for-you")
    assert "f.brand=Acme" in reader.path
    reader.check()


def test_a_copy_of_a_shopper(reader: Reader) -> None:
    shop(reader, "/storefront")
    reader.one(".who summary").click()
    reader.one("input[name=as]").send_keys("u1")
    reader.submit(".who form button")
    assert "A copy of shopper u1" in reader.text(".who")
    assert "Personalised with" in reader.text("#for-you") or "personalised with" in reader.text("#for-you")
    reader.check()


def _processes(parent: int) -> list[int]:
    """All processes that descend from one."""
    own = children(parent)
    return own + [below for child in own for below in _processes(child)]


def test_a_dead_server_is_a_message_and_a_restart_keeps_the_visit(work: Path, reader: Reader) -> None:
    command = [
        sys.executable, "-m", "shelfwise", "explore", "port=0", "threads=1", "device=cpu",
        f"artifacts={work / 'artifacts'}",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        reader.base = process.stdout.readline().split()[-1].rstrip("/")
        shop(reader, "/storefront")
        press(reader, "#for-you .item button[value^=buy]")
        served: list[int] = []

        def serving() -> bool:
            served[:] = [pid for pid in _processes(process.pid) if "serve" in _arguments(pid)]
            return len(served) >= 2

        until(serving)
        guard, server = served[0], served[1]
        os.kill(server, signal.SIGKILL)
        until(lambda: not runs(server))
        reader.clear()
        reader.one("#for-you .item button[value^=cart]").click()
        reader.wait(lambda: reader.text("h1") == "The shop is closed")
        assert "it ended with exit code 9" in reader.text()
        assert "listening on" in reader.text(".log")
        assert "did=buy" in reader.path
        reader.check(allow=[UNAVAILABLE])
        reader.submit("main button")
        assert "1 bought" in reader.text(".who")
        assert len(listed(reader)) == 12
        everything = _processes(process.pid)
        assert guard not in everything
        process.kill()
        process.wait()
        until(lambda: not any(runs(pid) for pid in everything))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _arguments(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


@pytest.mark.parametrize("query", ["?item=nothing", "?as=nobody"])
def test_an_unknown_product_or_shopper_is_a_readable_page(reader: Reader, query: str) -> None:
    reader.check_everywhere("/storefront" + query, allow=["the server responded with a status of 404"])
