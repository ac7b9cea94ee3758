from __future__ import annotations

import importlib.util
import io
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from conf.errors import InputError
from conf.explorer import ExploreConfig
from explorer.command import explore, listening, make_access, make_context, print_address
from explorer.security import Access

ROOT = Path(__file__).parents[2]


def test_the_pages_open_without_importing_a_model() -> None:
    """Torch and the compiled loops take seconds to import; the start page must not wait for them."""
    program = (
        "import sys; from explorer.app import create_app; from explorer.context import ExplorerContext\n"
        "create_app(ExplorerContext())\n"
        "print([name for name in ('torch', 'numba', 'faiss', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_library_is_one_line_with_the_command_that_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> Any:
        return None if name == "uvicorn" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(
        InputError, match=r"^the explorer needs uvicorn: pip install 'shelfwise\[explorer\]'$"
    ):
        explore(ExploreConfig(), Console(quiet=True))


def test_a_store_without_a_bundle_and_a_missing_evaluation_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="CURRENT: no such file; publish a bundle first"):
        make_context(ExploreConfig(artifacts=str(tmp_path)))


def test_a_server_that_does_not_answer_is_named_with_the_setting() -> None:
    with pytest.raises(InputError, match=r"no server answers at 127\.0\.0\.1:1; .* or set server=HOST:PORT"):
        explore(ExploreConfig(server="127.0.0.1:1", port=0), Console(quiet=True))


def test_a_taken_port_and_a_foreign_address_are_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} at 127\.0\.0\.1 is taken; set port=0"):
            listening("127.0.0.1", port)
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(InputError, match=f"host: '{host}' is not an address of this machine"):
            listening(host, 0)


def test_port_0_is_a_free_port() -> None:
    with listening("127.0.0.1", 0) as first, listening("127.0.0.1", 0) as second:
        assert first.getsockname()[1] != second.getsockname()[1] != 0


def test_loopback_needs_no_key_and_everything_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHELFWISE_EXPLORER_KEY", raising=False)
    assert make_access(ExploreConfig()) == (Access(), False)
    outside = ExploreConfig(host="192.0.2.1", hosts=["shop.example"])
    access, made = make_access(outside)
    assert made
    assert len(access.key) >= 32
    assert (access.local, access.hosts) == (False, ("shop.example",))
    assert make_access(outside)[0].key != access.key
    monkeypatch.setenv("SHELFWISE_EXPLORER_KEY", "chosen")
    assert make_access(outside) == (Access("chosen", False, ("shop.example",)), False)
    assert make_access(ExploreConfig())[0].key == "chosen"


def test_a_made_key_is_printed_in_the_address_and_a_chosen_one_is_not() -> None:
    config = ExploreConfig(host="192.0.2.1")

    def printed(made: bool) -> str:
        out = io.StringIO()
        print_address(config, "http://192.0.2.1:1/", Access("k3y", False), made, Console(file=out, width=200))
        return out.getvalue()

    assert "http://192.0.2.1:1/?key=k3y\n" in printed(True)
    assert "k3y" not in printed(False)
    assert "the key in SHELFWISE_EXPLORER_KEY" in printed(False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": 70000}, r"port must lie in 0\.\.65535"),
        ({"host": ""}, "host must not be empty"),
        ({"server": "shop"}, "server must be HOST:PORT"),
        ({"write": True}, "write=true needs server=HOST:PORT"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExploreConfig(**settings)


def test_the_store_is_the_default_one_unless_only_a_server_is_named() -> None:
    assert ExploreConfig().store == "work/artifacts"
    assert ExploreConfig(server="h:1").store is None
    assert ExploreConfig(server="h:1", artifacts="a").store == "a"


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A store whose current version has no files."""
    name = "20260101T000000Z-0123456789ab"
    (tmp_path / "versions" / name).mkdir(parents=True)
    (tmp_path / "versions" / name / "manifest.json").write_text("{")
    (tmp_path / "CURRENT").write_text(name)
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_address_shows_what_is_wrong_and_ends_cleanly(
    damaged: Path, number: int
) -> None:
    command = [sys.executable, "-m", "shelfwise", "explore", f"artifacts={damaged}", "port=0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("exploring at http://127.0.0.1:"), line
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(line.split()[-1], timeout=20)  # noqa: S310 - the address is http
    page = caught.value.read().decode()
    assert caught.value.code == 500
    assert "manifest.json: Expecting property name" in page
    assert "roll back or publish again" in page
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
