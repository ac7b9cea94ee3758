"""A browser that reads the explorer's pages, and what has to hold on every one of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.programs import chromium

ROOT = Path(__file__).parents[2]
AXE = Path(__file__).parent / "vendor" / "axe-4.14.1.min.js"
SIZES = {1280: 900, 390: 844}
"""Widths of a desk and of a phone, and their heights, in pixels."""
WAITING = '[hx-get="/loading"], [hx-get="/storefront/opening"], #progress'
"""What a page shows while it waits for something, and then loads itself again."""
SECONDS = 120.0
"""Longest wait for a page, on a machine that runs other tests."""
_READS = 20
"""Most readings of a part of a page that changes."""
Found = TypeVar("Found")


@contextmanager
def explorer(*settings: str, **environment: str) -> Iterator[str]:
    """Run `shelfwise explore` on a free port; yield its address, without a slash at the end."""
    command = [sys.executable, "-m", "shelfwise", "explore", "port=0", "threads=1", "device=cpu", *settings]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.match(r"exploring at (http://\S+)/\n", line)
        if found is None:
            raise RuntimeError(line + process.stdout.read())
        yield found.group(1)
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=30)
    if process.returncode or "Traceback" in said:
        raise RuntimeError(f"the explorer ended with {process.returncode}: {said}")


@contextmanager
def chrome() -> Iterator[Chrome]:
    """Yield a Chromium without a window, which keeps its console's and its network's log."""
    browser, driver = chromium()
    options = ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
        "--disable-background-networking", "--disable-component-update", "--no-first-run",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = Chrome(options=options, service=ChromeService(driver))
    try:
        made.set_page_load_timeout(SECONDS)
        yield made
    finally:
        made.quit()


class Reader:
    """Reads the pages of one explorer."""

    def __init__(self, driver: Chrome, base: str) -> None:
        self.driver = driver
        self.base = base
        self.size(1280)
        self.scheme("light")

    def size(self, width: int) -> None:
        """Show pages as wide as a screen of this width does."""
        self.width = width
        self._tell(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=SIZES[width], deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def scheme(self, name: str) -> None:
        """Prefer the scheme `light` or `dark`."""
        self._tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def _tell(self, command: str, **values: Any) -> None:
        self.driver.execute_cdp_cmd(command, values)

    def open(self, path: str) -> None:
        """Open a page; forget what the logs have of those before; wait while something is being loaded."""
        self.clear()
        self.driver.get(self.base + path)
        self.wait(lambda: not self.all(WAITING))

    def ready(self) -> None:
        """Wait while the page says that something is being loaded: it reloads itself then."""
        self.wait(lambda: not self.all('[hx-trigger="every 1s"]'))

    def clear(self) -> None:
        """Forget what the logs have so far."""
        for log in ("browser", "performance"):
            self.log(log)

    def log(self, name: str) -> list[dict[str, Any]]:
        """Return what a log has since the last time: `browser`, which is the console, or `performance`."""
        entries: list[dict[str, Any]] = self.driver.get_log(name)  # type: ignore[no-untyped-call]
        return entries

    def wait(self, condition: Any) -> None:
        """Wait until a condition holds; elements that a new page replaces meanwhile are looked up again."""
        replaced = (NoSuchElementException, StaleElementReferenceException)
        waiting = WebDriverWait(self.driver, SECONDS, poll_frequency=0.05, ignored_exceptions=replaced)
        waiting.until(lambda _: condition())

    def rest(self) -> None:
        """Wait until nothing on the page changes any more: no part asks again, and two pictures are equal."""
        self.wait(lambda: not self.all(".htmx-request, [hx-trigger^='load delay']"))
        seen: list[bytes] = []

        def still() -> bool:
            seen.append(self.driver.get_screenshot_as_png())
            return len(seen) > 1 and seen[-1] == seen[-2]

        self.wait(still)

    def one(self, selector: str) -> WebElement:
        """Return the first element that a CSS selector finds."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """Return all elements that a CSS selector finds."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str = "main") -> str:
        """Return the shown text of an element."""
        return self._settled(lambda: self.one(selector).text)

    def texts(self, selector: str) -> list[str]:
        """Return the shown text of each element."""
        return self._settled(lambda: [element.text for element in self.all(selector)])

    def _settled(self, read: Callable[[], Found]) -> Found:
        """Return what is read from the page, again if a new page or part replaces an element meanwhile."""
        for _ in range(_READS):
            with suppress(StaleElementReferenceException):
                return read()
        return read()

    @property
    def path(self) -> str:
        """Address of the page, without the host."""
        return self.driver.current_url.removeprefix(self.base)

    def submit(self, selector: str = "form button") -> None:
        """Press a button that leads to another page, and wait for that page."""
        before = self.one("html")
        self.one(selector).click()
        self.wait(lambda: self.one("html") != before)
        self.wait(lambda: not self.all(WAITING))

    def check(self, allow: Sequence[str] = ()) -> None:
        """Assert what has to hold on every page, as it is shown now.

        Args:
            allow: parts of console messages that are expected, for example of a page that is 404.

        """
        self._check_console(allow)
        self._check_requests()
        width = self.driver.execute_script("return document.documentElement.scrollWidth")
        # Not innerWidth: a phone's browser makes the window as wide as the page.
        assert width <= self.width, f"{self.path}: {width} px wide on a screen of {self.width} px"
        faults = self.faults()
        assert not faults, f"{self.path}: {faults}"

    def check_everywhere(self, path: str, allow: Sequence[str] = ()) -> None:
        """Open a page and assert `check` on desk and phone, light and dark."""
        for width in SIZES:
            self.size(width)
            self.scheme("light")
            self.open(path)
            for scheme in ("light", "dark"):
                self.scheme(scheme)
                self.check(allow)
        self.size(1280)
        self.scheme("light")

    def _check_console(self, allow: Sequence[str]) -> None:
        said = [f"{entry['level']}: {entry['message']}" for entry in self.log("browser")]
        wrong = [line for line in said if not any(part in line for part in allow)]
        assert not wrong, f"{self.path}: {wrong}"

    def _check_requests(self) -> None:
        asked = []
        for entry in self.log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.append(message["params"]["request"]["url"])
        own = urlsplit(self.base).netloc
        foreign = [
            address
            for address in asked
            if urlsplit(address).scheme not in ("data", "blob") and urlsplit(address).netloc != own
        ]
        assert not foreign, f"{self.path}: asks {foreign}"

    def faults(self) -> list[str]:
        """Return what axe-core finds serious or critical on the page: rule and elements."""
        if not self.driver.execute_script("return typeof axe === 'object'"):
            self.driver.execute_script(AXE.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run(document, {resultTypes: ['violations']})"
            ".then(result => done(result.violations), error => done(String(error)))"
        )
        assert isinstance(found, list), found
        return [
            f"{fault['id']}: {fault['help']}: {[node['target'] for node in fault['nodes'][:3]]}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]

    def press(self, *keys: str) -> None:
        """Press keys on the element that has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    @property
    def focused(self) -> WebElement:
        """The element that has the focus."""
        return self.driver.switch_to.active_element
