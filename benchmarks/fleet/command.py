"""Servers with one Redis behind a load balancer, on this machine: what a list costs, and what failures cost.

    python -m benchmarks.fleet --run work/demo

Each server has a store of its own that `shelfwise fetch` fills from one pushed store. All processes share the
CPUs of the machine, so throughput is bound by them: CPU milliseconds per call are what scales. Nothing is
asserted; the figures go to a JSON file and a Markdown page.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.fleet.calls import Call, summary
from benchmarks.fleet.freshness import event_to_list, upsert_to_search
from benchmarks.fleet.load import Load
from benchmarks.fleet.processes import Member, RedisProcess, RunningLoad, fleet, proxy, until
from benchmarks.fleet.report import page
from benchmarks.fleet.usage import RedisUsage, cpu_seconds, memory_mib, own_cpu_seconds, swap_cpu_seconds
from conf.operating import PushConfig
from features.data.pipeline_step import link_tree, write_atomically
from ranking.bundle.distribution.push import push_store
from ranking.bundle.distribution.remote import Remote
from ranking.bundle.store import MANIFEST, VERSIONS, current_version, publish_version, read_manifest

CONSOLE: Final = Console()
_OWN: Final = ("format_version", "version", "created", "files", "twin")
_LONGEST: Final = 3600.0
"""Seconds of a load that is stopped when what happens meanwhile has ended."""
_QUIET: Final = 3.0
"""Seconds between measurements, in which the former one ends."""


class FleetBenchmark:
    """The measurements of one run, in their order."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Copy the run and push its version."""
        self.options = options
        self.folder = Path(options.work_dir).resolve()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.trained = self.folder / "trained"
        source = Path(options.run) / "artifacts"
        version = current_version(source)
        shutil.copytree(source / VERSIONS / version, self.trained / VERSIONS / version)
        for name in ("CURRENT", "histories.parquet"):
            shutil.copyfile(source / name, self.trained / name)
        self.remote = f"file://{self.folder}/bucket"
        self.push()
        self.redis = RedisProcess(options.redis, self.folder / "redis")
        self.members = [
            Member(n, self.folder, self.remote, f"redis://127.0.0.1:{self.redis.port}/0", options.spread)
            for n in range(options.servers)
        ]
        self.results: dict[str, Any] = {
            "servers": options.servers, "cpus": os.cpu_count(), "load_average": os.getloadavg()[0],
            "seconds": options.seconds, "rates": options.rates,
        }  # fmt: skip

    def push(self) -> None:
        """Push the current version."""
        push_store(self.trained, Remote.open(self.remote), PushConfig())

    def publish_twin(self) -> str:
        """Publish a version of the same content and another name, and push it."""
        version = current_version(self.trained)
        folder = self.trained / VERSIONS / version
        described = {name: value for name, value in read_manifest(folder).items() if name not in _OWN}
        twin = publish_version(
            self.trained, lambda target: link_tree(folder, target, MANIFEST), {**described, "twin": version}
        )
        self.push()
        return twin

    @property
    def target(self) -> str:
        """All servers, for round robin in the client."""
        return f"ipv4:{','.join(member.address for member in self.members)}"

    def load(self, **settings: Any) -> Load:  # noqa: ANN401 - fields of Load
        """Return a load of the shop's shoppers."""
        usual = Load(self.target, str(self.trained), self.options.seconds)
        return replace(usual, **settings)

    def run(self) -> None:
        """Measure everything."""
        with fleet(self.members, self.redis):
            self.start()
            for kind in ("list", "event"):
                self.results[f"{kind}s"] = self.closed(self.load(kind=kind, callers=self.options.callers))
                self.write()
            self.results["idle"] = self.idle()
            self.results["freshness"] = {
                "event": event_to_list(self.members, self.options.probes),
                "item": upsert_to_search(self.members, self.options.probes),
            }
            for name in ("steady", "redis", "swap"):
                self.results[name] = getattr(self, f"mixed_{name}")()
                self.write()
            self.results["swap_alone"] = self.swap_alone()
            self.results["kill"] = self.mixed_kill()
            self.write()
            if self.options.nginx:
                self.results["nginx"] = self.through_proxy(self.options.nginx)
                self.write()

    def start(self) -> None:
        """Start Redis and the servers; the first one imports the histories."""
        self.redis.start()
        before = RedisUsage.of(self.redis.port).memory
        for member in self.members:
            member.follow()
        with CONSOLE.status("the servers start"), ThreadPoolExecutor(len(self.members)) as pool:
            started = list(pool.map(Member.start, self.members))
        after = RedisUsage.of(self.redis.port).memory
        with_users = self.redis_size()
        self.results["redis_memory"] = {
            "bytes": after - before, **with_users, "bytes_per_user": (after - before) / with_users["users"],
            "bytes_per_event": (after - before) / with_users["events"],
        }  # fmt: skip
        self.results["start_seconds"] = started
        self.results["memory_mib"] = [self.memory(member) for member in self.members]

    def redis_size(self) -> dict[str, int]:
        """Return the stored users and events."""
        import redis

        with redis.Redis(port=self.redis.port) as client:
            events: Any = client.hget("shelfwise:store", "events")
            users: Any = client.zcard("shelfwise:users")
            return {"users": int(users), "events": int(events or 0)}

    @staticmethod
    def memory(member: Member) -> float:
        """Return the memory of a server in MiB, shared pages once."""
        assert member.server is not None
        return memory_mib(member.server.pid)

    def pids(self) -> list[int]:
        """Return the root processes of the servers."""
        return [member.server.pid for member in self.members if member.server is not None]

    def closed(self, load: Load, also: Sequence[int] = ()) -> dict[str, Any]:
        """Run closed-loop callers; return throughput, and CPU and Redis per call."""
        RunningLoad(replace(load, seconds=_QUIET)).result()  # warm
        with CONSOLE.status(f"{load.callers} callers, {load.kind}"):
            servers, store, others = (
                cpu_seconds(self.pids()),
                RedisUsage.of(self.redis.port),
                cpu_seconds(also),
            )
            found = RunningLoad(load).result()
            servers = cpu_seconds(self.pids()) - servers
            spent = RedisUsage.of(self.redis.port).since(store)
            others = cpu_seconds(also) - others
        numbers = summary(found["calls"], found["seconds"])[load.kind]
        calls = numbers["calls"]
        return {
            **numbers, "server_cpu_ms": 1000 * servers / calls, "response_bytes": found["bytes"],
            "client_cpu_ms": 1000 * found["cpu_seconds"] / calls, "proxy_cpu_ms": 1000 * others / calls,
            "redis": {name: value / calls for name, value in spent.items()},
        }  # fmt: skip

    def idle(self) -> dict[str, Any]:
        """Return what servers and Redis spend per second without a call."""
        time.sleep(_QUIET)
        servers, store = cpu_seconds(self.pids()), RedisUsage.of(self.redis.port)
        time.sleep(self.options.seconds)
        spent = RedisUsage.of(self.redis.port).since(store)
        return {
            "server_cpu_ms": 1000 * (cpu_seconds(self.pids()) - servers) / self.options.seconds,
            "redis": {name: value / self.options.seconds for name, value in spent.items()},
        }

    def swap_alone(self) -> dict[str, Any]:
        """Return the time of a swap without load, memory meanwhile, and what fetches and servers spend."""
        before, begin = own_cpu_seconds(self.pids()), time.monotonic()
        seen = dict(before)
        fetching, rest = cpu_seconds(self.fetches()), [self.memory(member) for member in self.members]
        began, peak = time.monotonic(), 0.0
        version = self.publish_twin()
        waiting, at = set(range(len(self.members))), []
        while waiting and time.monotonic() - began < 900:
            peak = max(peak, max(self.memory(member) for member in self.members))
            for number in list(waiting):
                if self.members[number].version() == version:
                    waiting.discard(number)
                    at.append(time.monotonic() - began)
            seen |= own_cpu_seconds(self.pids())  # of the model's former process, too, until it ends
            time.sleep(0.5)
        fetching = cpu_seconds(self.fetches()) - fetching
        time.sleep(_QUIET)  # the former model ends, and new histories would be imported
        seen |= own_cpu_seconds(self.pids())
        spent, idle = sum(seen.values()) - sum(before.values()), self.results["idle"]["server_cpu_ms"]
        serving = swap_cpu_seconds(spent, time.monotonic() - begin, idle)
        files = read_manifest(self.trained / VERSIONS / version)["files"].values()
        return {
            "fetch_cpu_seconds_per_server": fetching / len(self.members),
            "server_cpu_seconds_per_server": serving / len(self.members),
            "first_seconds": min(at), "last_seconds": max(at), "memory_mib_before": max(rest),
            "memory_mib_peak": peak, "version_bytes": sum(file["size"] for file in files),
        }  # fmt: skip

    def fetches(self) -> list[int]:
        """Return the processes that fetch."""
        return [member.fetch.pid for member in self.members if member.fetch is not None]

    def mixed(self, seconds: float, seed: int, target: str | None = None) -> RunningLoad:
        """Start the mixed load."""
        lists, events, items = self.options.rates
        return RunningLoad(
            self.load(
                kind="mixed",
                seconds=seconds,
                lists=lists,
                events=events,
                items=items,
                seed=seed,
                target=target or self.target,
            )  # fmt: skip
        )

    def mixed_steady(self) -> dict[str, Any]:
        """Return the mixed load without a failure."""
        found = self.mixed(self.options.seconds, 1).result()
        return {"all": summary(found["calls"], found["seconds"])}

    def mixed_swap(self) -> dict[str, Any]:
        """Return the mixed load while a version goes through the fleet."""
        running = self.mixed(_LONGEST, 2)
        time.sleep(self.options.seconds / 2)
        began, mono = time.time(), time.monotonic()
        version, took = self.publish_twin(), []
        for member in self.members:
            until(lambda member=member: member.version() == version, f"the swap of server {member.number}")
            took.append(time.monotonic() - mono)
        ended = time.time()
        time.sleep(self.options.seconds / 2)
        found = running.stop()
        return {**self._phases(found, began, ended), "seconds_to_last": max(took)}

    def mixed_kill(self) -> dict[str, Any]:
        """Return the mixed load while a server is killed and started again."""
        running = self.mixed(_LONGEST, 3)
        time.sleep(self.options.seconds / 2)
        began = time.time()
        self.members[-1].kill()
        time.sleep(self.options.seconds / 2)
        restarted = self.members[-1].start()
        ended = time.time()
        time.sleep(self.options.seconds / 2)
        found = running.stop()
        return {**self._phases(found, began, ended), "restart_seconds": restarted}

    def mixed_redis(self) -> dict[str, Any]:
        """Return the mixed load while Redis is stopped for some seconds."""
        running = self.mixed(_LONGEST, 4)
        time.sleep(self.options.seconds / 2)
        began = time.time()
        self.redis.stop()
        time.sleep(self.options.outage)
        self.redis.start()
        ended = time.time()
        time.sleep(self.options.seconds / 2)
        found = running.stop()
        return {**self._phases(found, began, ended), "outage_seconds": ended - began}

    @staticmethod
    def _phases(found: dict[str, Any], began: float, ended: float) -> dict[str, Any]:
        calls: list[Call] = found["calls"]
        last = max(call[1] for call in calls) + 1e-3
        return {
            "all": summary(calls, found["seconds"]),
            "during": summary(calls, found["seconds"], (began, ended)),
            "after": summary(calls, found["seconds"], (ended, max(last, ended + 1e-3))),
        }

    def through_proxy(self, program: str) -> dict[str, Any]:
        """Return lists through a proxy, and the mixed load while a server behind it is killed."""
        with proxy(program, self.members, self.folder) as (address, pid):
            lists = self.closed(self.load(kind="list", callers=self.options.callers, target=address), [pid])
            running = self.mixed(2 * self.options.seconds, 5, address)
            time.sleep(self.options.seconds / 2)
            began = time.time()
            self.members[0].kill()
            time.sleep(self.options.seconds / 2)
            ended = time.time()
            self.members[0].start()
            return {"lists": lists, "kill": self._phases(running.result(), began, ended)}

    def write(self) -> None:
        """Write what has been measured so far."""
        output = Path(self.options.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output.with_suffix(".json"), json.dumps(self.results, indent=2) + "\n")
        write_atomically(output.with_suffix(".md"), page(self.results))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleet", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--run", default="work/demo", help="work directory of a finished run")
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0, help="per measurement")
    parser.add_argument("--callers", type=int, default=16, help="closed-loop callers")
    parser.add_argument(
        "--rates", type=float, nargs=3, default=[60.0, 20.0, 1.0], metavar=("LISTS", "EVENTS", "ITEMS"),
        help="calls per second of the mixed load",
    )  # fmt: skip
    parser.add_argument("--spread", type=float, default=10.0, help="spread_seconds of fetch")
    parser.add_argument("--outage", type=float, default=5.0, help="seconds without Redis")
    parser.add_argument("--probes", type=int, default=40, help="of each kind of freshness")
    parser.add_argument("--redis", default=shutil.which("redis-server"), help="program")
    parser.add_argument("--nginx", default=shutil.which("nginx"), help="program; none leaves it out")
    parser.add_argument("--work-dir", default="work/benchmarks/fleet", help="stores and logs; made anew")
    parser.add_argument(
        "--output", default="work/benchmarks/fleet-results", help="of the .json and .md files"
    )
    options = parser.parse_args()
    if options.redis is None:
        parser.error("no redis-server: apt-get install redis-server, or --redis PATH")
    benchmark = FleetBenchmark(options)
    benchmark.run()
    benchmark.write()
    CONSOLE.print(page(benchmark.results), markup=False, highlight=False)
    return 0
