"""The Node package, packed and installed as a shop does it, against a real server."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from serving.state.contracts.user_state import NewEvent
from serving.transport.api_keys import create_key
from shelfwise_client import Client, Event
from tests.faults.changing_bundle import ChangingBundle
from tests.programs import node, npm
from tests.serving.conftest import Harness, Servers

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "clients" / "node"
EXAMPLE = "node_modules/shelfwise-client/example.js"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the client in a copy of the repository's part that it needs."""
    repository = tmp_path_factory.mktemp("repository")
    folder = repository / "clients" / "node"
    shutil.copytree(CLIENT, folder, ignore=shutil.ignore_patterns("node_modules"))
    shutil.copytree(ROOT / "proto", repository / "proto", ignore=shutil.ignore_patterns("node_modules"))
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Path:
    """Folder of a shop's program that has installed the packed client, with no repository around it."""
    shop = tmp_path_factory.mktemp("shop")
    run_npm(checkout, "pack", "--pack-destination", str(shop))
    assert not (checkout / "recommendations.proto").exists()
    (shop / "package.json").write_text('{"name": "shop", "private": true, "type": "module"}')
    run_npm(shop, "install", "--ignore-scripts", *(str(path) for path in shop.glob("*.tgz")))
    return shop


def run_npm(folder: Path, *arguments: str) -> None:
    """Run npm with Node on the path, for the scripts of the package."""
    environment = {**os.environ, "PATH": os.pathsep.join((str(Path(node()).parent), os.environ["PATH"]))}
    command = [*npm(), *arguments, "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_the_package_has_the_client_and_the_proto_and_no_more(installed: Path) -> None:
    package = installed / "node_modules" / "shelfwise-client"
    names = ["README.md", "example.js", "package.json", "recommendations.proto", "shelfwise.js"]
    assert sorted(path.name for path in package.iterdir()) == names
    proto = ROOT / "proto" / "shelfwise" / "v1" / "recommendations.proto"
    assert (package / "recommendations.proto").read_bytes() == proto.read_bytes()


def test_the_lock_file_names_no_registry_but_the_public_one() -> None:
    packages = json.loads((CLIENT / "package-lock.json").read_text())["packages"]
    resolved = [package["resolved"] for package in packages.values() if "resolved" in package]
    assert all(url.startswith("https://registry.npmjs.org/") for url in resolved)
    assert all("integrity" in package for name, package in packages.items() if name)


def test_the_example_reads_lists_records_events_and_streams(
    servers: Servers, tmp_path: Path, installed: Path
) -> None:
    key = create_key(tmp_path / "keys.json", "node", ["read", "events", "batch"])
    server = servers.start(keys=str(tmp_path / "keys.json"))
    events = [NewEvent(f"u{n}", f"i{n}", "purchase", 1, f"client:{n}") for n in range(1, 41)]
    server.call(server.running.service._state.record(events))
    environment = {**os.environ, "SHELFWISE_KEY": key}
    done = subprocess.run(
        [node(), EXAMPLE, server.address, "u7"],
        cwd=installed,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "3 items from v1, DEGRADATION_NONE"
    assert lines[1] == "1. i8 Item 8 (item_to_item)"
    assert lines[4] == "4 new events, 0 rejected"
    assert lines[-1] == "40 users"
    assert "u5: i6, i0" in lines
    with sqlite3.connect(tmp_path / "state.sqlite") as db:
        rows = db.execute(
            "SELECT kind, item_id, list_position, surface, device FROM events WHERE surface IS NOT NULL"
        ).fetchall()
    db.close()
    assert ("click", "i8", 1, "home", "phone") in rows
    assert sorted(row[2] for row in rows if row[0] == "impression") == [1, 2, 3]


def test_the_example_runs_in_a_checkout(server: Harness, checkout: Path) -> None:
    """With the proto where it lies, and the packages that the lock file names."""
    run_npm(checkout, "ci", "--ignore-scripts")
    done = subprocess.run(
        [node(), "example.js", server.address, "u7"],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "3 items from v1, DEGRADATION_POPULARITY"


ITEMS = """
import { Shelfwise } from 'shelfwise-client';
const shop = new Shelfwise(process.argv[1]);
const before = await shop.getItem('i2');
const after = await shop.updateItem('i2', { price: 0.5, in_stock: false, tags: ['a', 'b'], category: null });
const batch = await shop.updateItems({ i3: { price: 7 }, nope: { price: 1 } });
const third = await shop.getItem('i3');
console.log(JSON.stringify([before, after, third, batch.updated_count, batch.rejects[0].reason]));
shop.close();
"""


def test_items_are_read_and_changed(servers: Servers, installed: Path) -> None:
    model = ChangingBundle()
    server = servers.start(model, live=model)
    done = subprocess.run(
        [node(), "--input-type=module", "-e", ITEMS, server.address],
        cwd=installed,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    item = {"title": "Item 2", "category": "HATS", "price": 2, "in_stock": True, "tags": ["sale", "new"]}
    changed = {"title": "Item 2", "price": 0.5, "in_stock": False, "tags": ["a", "b"]}
    third = {"title": "Item 3", "category": "SHOES", "price": 7, "in_stock": False, "tags": ["sale", "new"]}
    assert json.loads(done.stdout) == [item, changed, third, 1, "ITEM_NOT_FOUND"]


EXPORT = """
import { Shelfwise } from 'shelfwise-client';
const shop = new Shelfwise(process.argv[1]);
const events = [];
for await (const event of shop.exportUser('ana')) events.push([event.item_id, event.event, event.imported]);
console.log(JSON.stringify(events));
shop.close();
"""


def test_a_user_is_exported(servers: Servers, installed: Path) -> None:
    server = servers.start()
    with Client(server.address) as client:
        client.record_events([Event("ana", "i3", "click"), Event("bob", "i4", "click")])
    done = subprocess.run(
        [node(), "--input-type=module", "-e", EXPORT, server.address],
        cwd=installed,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["i3", "click", False]]


def test_failures_reach_the_caller(servers: Servers, tmp_path: Path, installed: Path) -> None:
    create_key(tmp_path / "keys.json", "other", ["read"])
    server = servers.start(keys=str(tmp_path / "keys.json"))
    environment = {**os.environ, "SHELFWISE_KEY": "wrong"}
    done = subprocess.run(
        [node(), EXAMPLE, server.address],
        cwd=installed,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "UNAUTHENTICATED" in done.stderr
