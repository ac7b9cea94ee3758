"""The key of the pages, and a bundle that becomes current while somebody reads."""

from __future__ import annotations

from pathlib import Path

from selenium.webdriver import Chrome

from ranking.bundle.store import current_version
from tests.browser.harness import Reader, explorer
from tests.bundles import published_again

UNAUTHORISED = "the server responded with a status of 401"


def test_a_key_is_asked_for_once(driver: Chrome, work: Path) -> None:
    with explorer(f"artifacts={work / 'artifacts'}", SHELFWISE_EXPLORER_KEY="k3y & more") as base:
        driver.delete_all_cookies()
        reader = Reader(driver, base)
        reader.check_everywhere("/shopper?user=u1&k=5", allow=[UNAUTHORISED])
        assert reader.text("h1") == "This explorer needs a key"
        reader.one("input[name=key]").send_keys("wrong")
        reader.submit()
        assert "That is not the key." in reader.text()
        reader.one("input[name=key]").send_keys("k3y & more")
        reader.submit()
        assert reader.text("h1") == "Shopper u1"
        assert reader.path == "/shopper?user=u1&k=5"
        reader.open("/")
        assert reader.text("h1") == "What this bundle is"
    driver.delete_all_cookies()


def test_a_version_that_becomes_current_is_followed(reader: Reader, work: Path) -> None:
    store = work / "artifacts"
    before = current_version(store)
    reader.open("/shopper?user=u1")
    assert before in reader.text("footer")
    newer = published_again(store, lambda folder: None)
    assert newer != before

    def follows() -> bool:
        reader.open("/shopper?user=u1")
        notice = reader.texts(".notice")
        if notice:
            assert newer in notice[0]
            assert before in reader.text("footer")
            reader.check()
        return newer in reader.text("footer")

    reader.wait(follows)
    assert reader.texts(".notice") == []
