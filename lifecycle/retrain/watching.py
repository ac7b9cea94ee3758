"""The steps `observe` and `watch`: the servers before and after the publication, and the rollback."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from conf.errors import InputError
from lifecycle.retrain.night import Night, served_version
from lifecycle.retrain.outcomes import EndOfRunError, Outcome
from lifecycle.retrain.watch.clicks import ClickSums, click_sums
from lifecycle.retrain.watch.guards import BROKEN, NOT_JUDGED, click_guard, metric_guards
from lifecycle.retrain.watch.metrics import Scrape, scrape, total
from lifecycle.retrain.watch.servers import Seen, look_at, reachable
from ranking.bundle.rollback import roll_back_engines
from ranking.bundle.store import MANIFEST, VERSIONS
from serving.state.contracts.user_state import StateUnavailableError

BEGAN: Final = "watch_began"
"""Note of the journal: when the watch began (`time`, Unix seconds), and the counters then (`metrics`)."""
ROLLING_BACK: Final = "rolling_back"
"""Note of the journal: why the version before is made current again, or would be if there were one."""
OFF: Final = {"watched": False}


def observe_step(night: Night) -> dict[str, Any]:
    """Look at the servers before the publication: which of them answer.

    Returns:
        Versions and counters by address; nothing without `retrain.watch.seconds`.
    """
    watch = night.config.retrain.watch
    if not watch.seconds:
        return OFF
    scrapes, unread = _scrapes(watch.metrics)
    seen = look_at(watch)
    for problem in [*(one.problem for one in seen if one.problem is not None), *unread]:
        night.say(f"before the publication: {problem}")
    return {
        "watched": True,
        "servers": [asdict(one) for one in seen],
        "metrics": scrapes,
    }


def watch_step(night: Night) -> dict[str, Any]:
    """Watch the servers for `retrain.watch.seconds`; roll back if a guard is broken.

    Returns:
        The last look: versions by server, and the guards.

    Raises:
        EndOfRunError: a guard was broken and the version before is current again, or a server has not
            answered, neither before nor after the publication.
    """
    watch, published = night.config.retrain.watch, night.record("publish")
    reason = night.journal.content.get(ROLLING_BACK)
    if reason is not None:  # a kill has interrupted the rollback
        _roll_back(night, str(reason), {"watched": True})
    if not watch.seconds:
        return OFF
    if BEGAN not in night.journal.content:
        # Measuring, and training once more, take a while, whose calls are of the version before.
        metrics = {**night.record("observe").get("metrics", {}), **_scrapes(watch.metrics)[0]}
        night.journal.note(BEGAN, {"time": time.time(), "metrics": metrics})
    night.say(f"watching {published['version']} for {watch.seconds:g} s")
    return _Watch(night).run()


def _scrapes(addresses: Sequence[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the records of the counters of servers, and why there are none of those that did not answer."""
    found = {address: scrape(address) for address in addresses}
    read = {address: one.record() for address, one in found.items() if isinstance(one, Scrape)}
    return read, [one for one in found.values() if isinstance(one, str)]


class _Watch:
    """The looks at one published version."""

    def __init__(self, night: Night) -> None:
        """Take the run; what was seen before, and when the watch began, is in its journal."""
        self.night, self.config = night, night.config.retrain.watch
        self.version = str(night.record("publish")["version"])
        began = night.journal.content[BEGAN]
        self.began = float(began["time"])
        self.before = {address: Scrape(**found) for address, found in began["metrics"].items()}
        self.answered = reachable([Seen(**one) for one in night.record("observe").get("servers", [])])
        self.last_answer = dict.fromkeys(self.config.servers, time.time())
        """When each server last answered, Unix seconds; at first the time of the first look."""

    def run(self) -> dict[str, Any]:
        """Look until the time is over; see `watch_step`."""
        while True:
            served = served_version(self.night.store)
            if served != self.version:
                self.night.say(f"{served} has become current; the watch ends")
                return {"watched": True, "superseded_by": served}
            elapsed = time.time() - self.began
            seen = look_at(self.config)
            broken = self._not_taken(seen, elapsed)
            missing = [one for one in seen if not one.takes(self.version)]
            in_time = elapsed < self.config.take_seconds
            pending = [one for one in missing if in_time or one.address in self.answered]
            last = elapsed >= self.config.seconds and (bool(broken) or not pending)
            guards = self._guards(last)
            broken += [guard["line"] for guard in guards if guard["outcome"] == BROKEN]
            record = {
                "watched": True,
                "watched_seconds": round(elapsed, 1),
                "servers": [asdict(one) for one in seen],
                "guards": guards,
            }
            if broken:
                _roll_back(self.night, "; ".join(broken), record)
            if last:
                return self._ended(missing, record)
            time.sleep(min(self.config.interval_seconds, max(self.config.seconds - elapsed, 0.2)))

    def _not_taken(self, seen: Sequence[Seen], elapsed: float) -> list[str]:
        """Return why servers that answered before the publication do not serve the version, if it is late."""
        lines, now = [], time.time()
        for one in seen:
            if one.version is not None:
                self.last_answer[one.address] = now
            if one.takes(self.version) or one.address not in self.answered:
                continue
            if one.failed_version == self.version:
                lines.append(f"{one.address} cannot load {self.version}: {one.problem}")
            elif one.version is None and now - self.last_answer[one.address] > self.config.take_seconds:
                lines.append(f"{one.address} has stopped to answer: {one.problem}")
            elif (
                one.version is not None and one.loading != self.version and elapsed > self.config.take_seconds
            ):
                lines.append(
                    f"{one.address} still serves {one.version} after {elapsed:.0f} s "
                    f"(retrain.watch.take_seconds={self.config.take_seconds:g})"
                )
        return lines

    def _guards(self, last: bool) -> list[dict[str, Any]]:
        guards = []
        if self.config.metrics:
            now, unread = _scrapes(self.config.metrics)
            for problem in unread if last else ():
                self.night.say(f"at the last look: {problem}")
            both = [address for address in now if address in self.before]
            grown = total([Scrape(**now[address]).since(self.before[address]) for address in both])
            guards += metric_guards(
                total([self.before[address] for address in both]), grown, self.config, last=last
            )
        if last:
            guards.append(self._clicks())
        return guards

    def _clicks(self) -> dict[str, Any]:
        before = self.night.record("publish")["before"]
        if before is None:
            return _no_clicks("nothing was served before")
        path = self.night.store / VERSIONS / self.version / MANIFEST
        manifest = json.loads(path.read_text(encoding="utf-8"))
        kinds = [
            k for k, is_click in zip(manifest["kinds"], manifest["click_kinds"], strict=True) if is_click
        ]
        config = self.night.config
        try:
            sums = click_sums([before, self.version], kinds, config.state, self.night.store, config.redis)
        except (InputError, StateUnavailableError) as error:
            return _no_clicks(str(error))
        guard = click_guard(sums[before], sums[self.version], self.config)
        return {**guard, "before": sums[before].record(), "after": sums[self.version].record()}

    def _ended(self, missing: Sequence[Seen], record: dict[str, Any]) -> dict[str, Any]:
        for guard in record["guards"]:
            self.night.say(guard["line"])
        if missing:
            problems = "; ".join(one.problem or f"{one.address} serves {one.version}" for one in missing)
            raise EndOfRunError(
                Outcome.fault,
                f"{self.version} is current and no guard is broken, but servers that did not answer before "
                f"the publication either cannot be watched: {problems}",
                record,
            )
        return record


def _no_clicks(why: str) -> dict[str, Any]:
    nothing = ClickSums().record()
    return {
        "name": "clicks", "outcome": NOT_JUDGED, "value": None, "limit": None,
        "line": f"{NOT_JUDGED}: clicks: {why}", "before": nothing, "after": nothing,
    }  # fmt: skip


def _roll_back(night: Night, reason: str, record: dict[str, Any]) -> None:
    """Make the version before current again, and wait until the servers serve it.

    Raises:
        EndOfRunError: always; the run ends with it.
    """
    published = night.record("publish")
    before, watch = published["before"], night.config.retrain.watch
    night.journal.note(ROLLING_BACK, reason)
    if before is None:
        raise EndOfRunError(
            Outcome.fault,
            f"{reason}; there is no version before {published['version']} to go back to, so it is served",
            record,
        )
    try:
        roll_back_engines(night.config.retrieval, night.store, night.console, before)
    except InputError as error:
        raise EndOfRunError(
            Outcome.fault, f"{reason}; {published['version']} is served all the same: {error}", record
        ) from error
    night.say(f"{reason}; {before} is current again")
    deadline = time.time() + watch.take_seconds
    while True:
        seen = look_at(watch)
        behind = [one for one in seen if one.version is not None and not one.takes(before)]
        if not behind or time.time() > deadline:
            break
        time.sleep(min(watch.interval_seconds, 1.0))
    followed = [one.address for one in seen if one.takes(before)]
    record = {**record, "rolled_back_to": before, "servers_after_rollback": [asdict(one) for one in seen]}
    late = "".join(f"; {one.address} still serves {one.version}" for one in behind)
    said = f"; {len(followed)} of {len(seen)} servers serve it" if seen else ""
    raise EndOfRunError(Outcome.rolled_back, f"{reason}; {before} is current again{said}{late}", record)
