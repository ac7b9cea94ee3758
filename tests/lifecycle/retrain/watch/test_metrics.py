"""Counters between two scrapes, by hand."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import generate_latest

from lifecycle.retrain.watch.metrics import Scrape, read_metrics, scrape, total
from serving.core.call_context import CallRecord
from serving.observability.metrics import Metrics


def call(metrics: Metrics, method: str, code: str, seconds: float, degradation: str | None = None) -> None:
    notes: dict[str, str | int] = {} if degradation is None else {"degradation": degradation}
    metrics.call(CallRecord(method, "id", began=0.0, ended=seconds, code=code, notes=notes))


def test_the_metrics_of_a_server_are_read_as_it_writes_them() -> None:
    metrics = Metrics()
    for _ in range(3):
        call(metrics, "Recommend", "OK", 0.004, "none")
    call(metrics, "Recommend", "INTERNAL", 0.2)
    call(metrics, "Recommend", "INVALID_ARGUMENT", 0.0005)
    call(metrics, "SimilarItems", "OK", 0.004, "popularity")
    call(metrics, "GetStatus", "OK", 4.0)
    found = read_metrics(generate_latest(metrics.registry).decode())
    assert found.codes == {"OK": 4, "INTERNAL": 1, "INVALID_ARGUMENT": 1}
    assert (found.calls, found.errors) == (6, 1), "the caller's faults are no errors, and watching is no call"
    assert (found.all_lists, found.degraded) == (4, 1)
    assert (found.calls_of("Recommend"), found.calls_of("Search")) == (5, 0)
    bounds = found.slow["Recommend"]
    assert (bounds["0.001"], bounds["0.005"], bounds["0.25"]) == (1, 4, 5)


BUCKETS = Scrape(slow={"Recommend": {"0.01": 80, "0.02": 98, "0.05": 100, "+Inf": 100}})


def test_a_quantile_is_interpolated_within_its_bucket() -> None:
    assert BUCKETS.quantile("Recommend", 0.5) == pytest.approx(0.01 * 50 / 80)
    assert BUCKETS.quantile("Recommend", 0.99) == pytest.approx(0.02 + 0.03 * 1 / 2)
    beyond = Scrape(slow={"Recommend": {"0.01": 50, "+Inf": 100}})
    assert beyond.quantile("Recommend", 0.99) == 0.01


def test_only_calls_that_surely_took_longer_are_counted_as_slower() -> None:
    assert BUCKETS.slower_than("Recommend", 0.02) == 2
    assert BUCKETS.slower_than("Recommend", 0.011) == 2, "those up to 0.02 may have been faster"
    assert BUCKETS.slower_than("Recommend", 3.0) == 0


def test_growth_is_the_difference_and_all_of_it_after_a_restart() -> None:
    earlier = Scrape({"OK": 10}, {"Recommend": {"0.01": 6, "+Inf": 10}}, {"none": 10})
    later = Scrape(
        {"OK": 14, "INTERNAL": 1}, {"Recommend": {"0.01": 7, "+Inf": 15}}, {"none": 12, "popularity": 2}
    )
    assert later.since(earlier) == Scrape(
        {"OK": 4, "INTERNAL": 1}, {"Recommend": {"0.01": 1, "+Inf": 5}}, {"none": 2, "popularity": 2}
    )  # fmt: skip
    restarted = Scrape({"OK": 3}, {"Recommend": {"0.01": 1, "+Inf": 3}}, {"none": 3})
    assert restarted.since(earlier) == restarted
    busier = Scrape({"OK": 30}, {"Recommend": {"0.01": 25, "+Inf": 30}}, {"none": 9, "popularity": 1})
    assert busier.since(earlier) == busier, "fewer lists than before, though more calls"
    assert total([earlier, restarted]).codes == {"OK": 13}


@contextmanager
def page(status: int, body: bytes, promised: int | None = None) -> Iterator[str]:
    """Serve a page, of which more bytes may be promised than there are, as by a server that is killed."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if promised is None else promised))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_page_that_cannot_be_read_is_said_and_no_error() -> None:
    with page(200, b'shelfwise_call_seconds_count{method="Recommend",code="OK"} 7\n') as address:
        found = scrape(address)
        assert isinstance(found, Scrape)
        assert found.calls == 7
    with page(500, b"") as address:
        assert scrape(address) == f"{address}: HTTP Error 500: Internal Server Error"
    with page(200, b'{"not": metrics') as address:
        assert str(scrape(address)).startswith(f"{address}: ")
    with page(200, b"half", promised=9) as address:
        assert scrape(address) == f"{address}: IncompleteRead(4 bytes read, 5 more expected)"
    assert str(scrape("http://shop1:94b/metrics")).startswith("http://shop1:94b/metrics: nonnumeric port")
    assert "Connection refused" in str(scrape("http://127.0.0.1:9/metrics"))
