"""`shelfwise recommend-batch`: every user once, after any interruption."""

from __future__ import annotations

import fcntl
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from conf.clients import ClientTlsConfig, RecommendBatchConfig
from conf.errors import InputError
from serving.cli.recommend_batch import recommend_batch
from serving.transport.api_keys import create_key
from shelfwise_client import BatchQuery, Client, UserListResult
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.client.test_clients import closed_port
from tests.serving.conftest import Harness, Servers, until
from tests.serving.list_streams import fill, name_of
from tests.serving.transport.test_security import Authority, tls

ROOT = Path(__file__).parents[3]


def written(server: Harness, output: Path, **settings: Any) -> str:
    """Run the command; return its output."""
    said = io.StringIO()
    config = RecommendBatchConfig(address=server.address, output=str(output), k=2, **settings)
    recommend_batch(config, Console(file=said, width=200))
    return said.getvalue()


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.read_text().splitlines()]


def remains(output: Path) -> set[str]:
    return {path.name for path in output.parent.iterdir() if path.name.startswith(output.name)}


def cut_after(count: int, monkeypatch: pytest.MonkeyPatch) -> list[BatchQuery]:
    """Have streams raise KeyboardInterrupt after so many lists, once; return the queries."""
    real, asked = Client.batch_recommend, list[BatchQuery]()

    def broken(self: Client, query: BatchQuery) -> Iterator[UserListResult]:
        asked.append(query)
        for number, found in enumerate(real(self, query)):
            if number == count and len(asked) == 1:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(Client, "batch_recommend", broken)
    return asked


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "campaign" / "lists.jsonl"


def test_every_user_with_an_event_has_a_line(server: Harness, output: Path) -> None:
    fill(server, 20)
    assert f"20 lists written to {output} (20 none)" in written(server, output)
    found = lines(output)
    assert [line["user_id"] for line in found] == [name_of(n) for n in range(20)]
    first = found[3]
    assert first["items"] == [
        {"item_id": "i4", "title": "Item 4", "list_position": 1},
        {"item_id": "i0", "title": "Item 0", "list_position": 2},
    ]
    assert (first["degradation"], first["model_version"]) == ("none", "v1")
    assert first["attribution_token"]
    assert first["resume_token"]
    assert remains(output) == {"lists.jsonl"}


def test_it_goes_on_where_it_was_stopped_and_cuts_a_torn_line(
    server: Harness, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server, 30)
    asked = cut_after(12, monkeypatch)
    with pytest.raises(InputError, match="stopped; 12 lists are kept, the same call resumes after them"):
        written(server, output)
    assert not output.exists()
    part = output.with_name("lists.jsonl.part")
    with part.open("ab") as file:
        file.write(b'{"user_id": "user-000')  # as a power cut leaves it
    said = written(server, output)
    assert "resuming after 12 lists" in said
    assert "30 lists written" in said
    assert [line["user_id"] for line in lines(output)] == [name_of(n) for n in range(30)]
    assert asked[1].resume_token  # nothing was made twice
    assert remains(output) == {"lists.jsonl"}


def test_named_users_each_have_a_line_in_their_order_and_it_goes_on_among_them(
    server: Harness, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.cli.recommend_batch._USERS_PER_REQUEST", 4)
    names = ["zoe", "nobody", "zoe", *(name_of(n) for n in range(9))]
    users = tmp_path / "users.txt"
    users.write_text("\r\n".join(names) + "\n\n")
    fill(server, 5)
    asked = cut_after(3, monkeypatch)
    with pytest.raises(InputError, match="3 lists are kept"):
        written(server, output, users=str(users))
    written(server, output, users=str(users))
    assert [line["user_id"] for line in lines(output)] == names
    assert [len(query.user_ids or ()) for query in asked] == [4, 4, 4, 1]
    assert {line["degradation"] for line in lines(output)} == {"none", "popularity"}


def test_other_settings_do_not_go_on_with_a_file(
    server: Harness, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server, 9)
    users = tmp_path / "users.txt"
    users.write_text("\n".join(name_of(n) for n in range(9)))
    cut_after(3, monkeypatch)
    with pytest.raises(InputError, match="3 lists are kept"):
        written(server, output, users=str(users))
    with pytest.raises(InputError, match=r"begun with other settings \(filter, surface\); use the same"):
        written(server, output, users=str(users), filter="in_stock", surface="push")
    users.write_text("somebody else\n")
    with pytest.raises(InputError, match=r"begun with other settings \(users\)"):
        written(server, output, users=str(users))
    assert len(lines(output.with_name("lists.jsonl.part"))) == 3


def test_a_user_without_a_list_has_a_line_that_says_why(
    server: Harness, output: Path, tmp_path: Path
) -> None:
    users = tmp_path / "users.txt"
    users.write_text(f"ann\n{'x' * 300}\n")
    assert "(1 popularity, 1 INVALID_FIELD)" in written(server, output, users=str(users), explain=True)
    good, bad = lines(output)
    assert good["items"][0]["reasons"][0]["kind"] == "popular"
    assert bad["error"]["reason"] == "INVALID_FIELD"
    assert "items" not in bad


def test_it_waits_for_a_place_among_the_streams(
    servers: Servers, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = servers.start(max_streams=1)
    fill(full, 3)
    full.model.recommender.gate.clear()
    held = full.stub.BatchRecommend(pb.BatchRecommendRequest(user_list=pb.UserList(user_ids=["ann"])))
    until(lambda: full.running.service._batches._running == 1)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        full.model.recommender.gate.set()
        assert len(list(held)) == 1

    monkeypatch.setattr("serving.cli.recommend_batch.sleep", sleep)
    written(full, output)
    assert waited == [10.0]
    assert len(lines(output)) == 3


def test_what_stands_in_the_way_is_one_readable_line(
    server: Harness, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server, 2)
    with pytest.raises(InputError, match=r"refused: filter: column 1: unknown attribute 'colour'"):
        written(server, output, filter="colour = 1")
    assert remains(output) == set()
    with pytest.raises(InputError, match=r"lost\.txt: cannot be read \(No such file"):
        written(server, output, users=str(tmp_path / "lost.txt"))
    with pytest.raises(InputError, match="request_time: 'noon' is not an ISO time"):
        written(server, output, request_time="noon")
    written(server, output)
    with pytest.raises(InputError, match="is there already, and complete; name another file, or delete it"):
        written(server, output)
    monkeypatch.setattr("shelfwise_client.streams._FIRST_WAIT", 0.001)
    nowhere = RecommendBatchConfig(address=f"127.0.0.1:{closed_port()}", output=str(tmp_path / "other"))
    with pytest.raises(InputError, match="no server answers at"):
        recommend_batch(nowhere, Console(file=io.StringIO()))


def test_two_commands_do_not_write_one_file(server: Harness, output: Path) -> None:
    output.parent.mkdir()
    with output.with_name("lists.jsonl.part").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another command is writing it"):
            written(server, output)


def test_a_file_of_something_else_is_left_alone(server: Harness, output: Path) -> None:
    output.parent.mkdir()
    part = output.with_name("lists.jsonl.part")
    part.write_text("a shopping list\n")
    with pytest.raises(InputError, match="not a file of this command"):
        written(server, output)
    assert part.read_text() == "a shopping list\n"


def test_keys_and_certificates_are_used(
    servers: Servers, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, authority = tmp_path / "keys.json", Authority(tmp_path / "pki")
    secret = create_key(keys, "mail", ["batch"])
    server = servers.start(keys=str(keys), tls=tls(authority.issue("server"), authority.root))
    fill(server, 3)
    certificate, key = authority.issue("mailer")
    config = RecommendBatchConfig(
        address=f"localhost:{server.running.port}",
        output=str(output),
        tls=ClientTlsConfig(True, str(authority.root), str(certificate), str(key)),
    )
    with pytest.raises(InputError, match="refused: no API key; .*put a key into SHELFWISE_API_KEY"):
        recommend_batch(config, Console(file=io.StringIO()))
    monkeypatch.setenv("SHELFWISE_API_KEY", secret)
    recommend_batch(config, Console(file=io.StringIO()))
    assert len(lines(output)) == 3


def test_a_killed_command_costs_nothing_but_time(server: Harness, output: Path) -> None:
    fill(server, 3000)
    words = [
        sys.executable, "-m", "shelfwise", "recommend", "batch", f"output={output}", "k=20", "fields=[]",
        f"address={server.address}",
    ]  # fmt: skip
    part = output.with_name("lists.jsonl.part")
    killed = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)
    until_written(part)
    killed.send_signal(signal.SIGKILL)
    killed.wait(20)
    assert not output.exists()
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "resuming after" in done.stdout
    assert [line["user_id"] for line in lines(output)] == [name_of(n) for n in range(3000)]


def until_written(part: Path) -> None:
    """Wait until a process that takes a while to start has written something."""
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size):
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.002)
