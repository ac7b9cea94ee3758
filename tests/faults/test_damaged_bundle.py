"""Damaged, half-copied and unreadable bundles: a start names the file, a running server keeps its model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from features.data.pipeline_step import write_atomically
from ranking.bundle.store import VERSIONS, current_version
from serving.observability.health import RELOAD_HEALTH
from shelfwise_client import Client, FailedReload, Item, RecommendQuery, SimilarQuery
from tests.faults.conftest import Processes
from tests.faults.server_process import ROOT, ServerProcess, complaint

UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
"""A user without root's permissions, as servers should have."""
KINDS = {
    "manifest.json", "config.yaml", "catalog.parquet", "text_vectors.npy", "item_vectors.npy", "index.faiss",
    "text_neighbours.safetensors", "statistics.safetensors", "factors.safetensors",
    "user_encoder.safetensors", "user_encoder.json", "ranker.safetensors", "ranker.json",
    "text_encoder/model.safetensors",
    "text_encoder/tokenizer.json", "text_encoder/config.json",
}  # fmt: skip


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0b100
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


HARMS: dict[str, Callable[[Path], object]] = {
    "bit flip": flip,
    "truncated": truncate,
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "unreadable": lambda path: path.chmod(0),
}


class Starts:
    """Tries to start servers on stores, one after another."""

    def __init__(self) -> None:
        command = [*UNPRIVILEGED, sys.executable, "-m", "tests.faults.starts"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)

    def of(self, store: Path) -> tuple[int | None, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{store}\n")
        self._process.stdin.flush()
        code, errors = json.loads(self._process.stdout.readline())
        return code, errors

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def starts() -> Iterator[Starts]:
    made = Starts()
    yield made
    made.close()


def files_of(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_an_undamaged_store_starts(starts: Starts, trained_store: Path) -> None:
    code, output = starts.of(trained_store)
    assert code is None, output
    assert "listening on" in output, output
    assert set(files_of(trained_store / VERSIONS / current_version(trained_store))) >= KINDS


@pytest.mark.parametrize("harm", HARMS)
def test_a_start_names_the_damaged_file_in_one_line(starts: Starts, trained_store: Path, harm: str) -> None:
    folder = trained_store / VERSIONS / current_version(trained_store)
    for name in files_of(folder):
        whole = (folder / name).read_bytes()
        HARMS[harm](folder / name)
        code, output = starts.of(trained_store)
        line = complaint(output)
        assert code == 2, line
        assert f"{folder / name}: " in line
        assert len(line) < 400
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(whole)
    assert starts.of(trained_store)[0] is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\x00" * 20,
        b"\xff\xfe",
        b"nonsense",
        b"../../etc",
        b"/etc",
        b"20240101T000000Z-000000000000",
    ],
)
def test_a_start_with_a_pointer_to_nothing_says_what_there_is(
    starts: Starts, trained_store: Path, content: bytes
) -> None:
    version = current_version(trained_store)
    (trained_store / "CURRENT").write_bytes(content)
    code, output = starts.of(trained_store)
    line = complaint(output)
    assert code == 2
    assert "which is not a published version" in line
    assert version in line


def test_a_start_without_permission_to_read_the_pointer_or_the_folders(
    starts: Starts, trained_store: Path
) -> None:
    for path in (trained_store / "CURRENT", trained_store / VERSIONS, trained_store):
        mode = path.stat().st_mode
        path.chmod(0)
        code, output = starts.of(trained_store)
        path.chmod(mode)
        assert code == 2, output
        assert str(path) in complaint(output), output


def settled(client: Client, version: str, says: str) -> FailedReload:
    """Wait until the server reports that it cannot serve a version; return the reason."""
    deadline = time.monotonic() + 20
    while True:
        failed = client.status().failed_reload
        if failed is not None and failed.model_version == version and says in failed.reason:
            return failed
        assert time.monotonic() < deadline, "nothing is reported"
        time.sleep(0.02)


def reload_health(server: ServerProcess) -> int:
    with grpc.insecure_channel(server.address) as channel:
        request = health_pb2.HealthCheckRequest(service=RELOAD_HEALTH)
        return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status)


def test_a_running_server_keeps_its_model_whatever_harm_is_done_to_the_next(
    processes: Processes, trained_store: Path
) -> None:
    """Every kind of damage in turn to the same running process; see test_reload for every file."""
    first, pointer = current_version(trained_store), trained_store / "CURRENT"
    words = processes.command(store=trained_store, real=True, reload_seconds=0.1)
    server = processes.begin([*UNPRIVILEGED, *words]).ready()
    serving = health_pb2.HealthCheckResponse.SERVING
    with Client(server.address) as client:
        for number, harm in enumerate(HARMS):
            version = f"20990101T00000{number}Z-{first.split('-')[1]}"
            folder = Path(
                shutil.copytree(trained_store / VERSIONS / first, trained_store / VERSIONS / version)
            )
            HARMS[harm](folder / "index.faiss")
            write_atomically(pointer, version + "\n")
            settled(client, version, f"versions/{version}/index.faiss: ")
            assert reload_health(server) == health_pb2.HealthCheckResponse.NOT_SERVING
            assert client.recommend(RecommendQuery(intent="boots")).model_version == first
        for content in ("\0 ", f"../versions/{first}"):
            write_atomically(pointer, content)
            settled(client, "", f"names {content.strip()!r}, which is not a published version")
        write_atomically(pointer, first + "\n")
        deadline = time.monotonic() + 20
        while client.status().failed_reload is not None or reload_health(server) != serving:
            assert time.monotonic() < deadline, "it does not recover"
            time.sleep(0.02)
    assert server.stop() == 0
    errors = server.err.read_text()
    assert errors.count("cannot be served") == len(HARMS) + 2
    assert "Traceback" not in errors


def test_a_running_server_does_not_need_the_files_of_its_model(
    processes: Processes, trained_store: Path
) -> None:
    server = processes.start(store=trained_store, real=True)
    folder = trained_store / VERSIONS / current_version(trained_store)
    for name in files_of(folder):
        os.truncate(folder / name, 0)
    with Client(server.address) as client:
        query = RecommendQuery(intent="boots that nobody has asked for", page_size=7)
        assert len(client.recommend(query).items) == 7
        client.upsert_items([Item("later", {"title": "A kettle"})])
        assert client.similar_items(SimilarQuery(text="A kettle", page_size=1)).items[0].item_id == "later"
    assert server.stop() == 0
