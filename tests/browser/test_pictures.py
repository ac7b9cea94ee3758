"""Pictures of the catalogue load from other hosts: only after the reader has switched them on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from ranking.bundle.catalogue_file import CATALOG
from tests.browser.harness import ROOT, Reader
from tests.bundles import published_again

PAGE = "/shopper?user=u1&k=3"


class OtherHost:
    """A host with pictures, and the headers of the requests for them."""

    def __init__(self) -> None:
        self.requests: list[dict[str, str]] = []
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.requests.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(200)
                self.send_header("Content-Type", "image/svg+xml")
                self.end_headers()
                self.wfile.write((ROOT / "explorer" / "static" / "icon.svg").read_bytes())

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # Another name than the explorer has: a browser sends cookies to every port of a host.
        self.address = f"http://localhost:{self.server.server_port}"


@pytest.fixture(scope="module")
def other_host() -> Iterator[OtherHost]:
    host = OtherHost()
    thread = threading.Thread(target=host.server.serve_forever)
    thread.start()
    yield host
    host.server.shutdown()
    thread.join()
    host.server.server_close()


@pytest.fixture
def with_pictures(reader: Reader, work: Path, other_host: OtherHost) -> Reader:
    """The explorer, once it has followed to a version whose items have pictures."""

    def add(folder: Path) -> None:
        frame = pl.read_parquet(folder / CATALOG)
        address = pl.concat_str(pl.lit(f"{other_host.address}/"), "item_id", pl.lit(".svg"))
        frame.with_columns(address.alias("image_url")).write_parquet(folder / CATALOG)

    version = published_again(work / "artifacts", add)

    def follows() -> bool:
        reader.open(PAGE)
        return version in reader.text("footer")

    reader.wait(follows)
    return reader


def test_pictures_load_once_they_are_switched_on_and_not_before(
    with_pictures: Reader, other_host: OtherHost
) -> None:
    reader = with_pictures
    reader.check_everywhere(PAGE)
    assert other_host.requests == []
    assert reader.all("main img") == []
    reader.submit("a[href^='/pictures/on']")
    assert reader.path == PAGE
    shown = reader.all("[data-item] img")
    assert len(shown) == 3

    def loaded() -> bool:
        return all(reader.driver.execute_script("return arguments[0].naturalWidth", i) > 0 for i in shown)

    reader.wait(loaded)
    assert [image.get_attribute("src") for image in shown] == [
        f"{other_host.address}/{item.get_attribute('data-item')}.svg" for item in reader.all("[data-item]")
    ]
    assert len(other_host.requests) >= 3
    # The host learns neither the page, whose address has a shopper in it, nor any cookie.
    assert not any({"referer", "cookie"} & set(headers) for headers in other_host.requests)
    assert reader.faults() == []
    reader.submit("a[href^='/pictures/off']")
    assert reader.all("main img") == []
