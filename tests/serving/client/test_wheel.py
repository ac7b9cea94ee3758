"""The wheel of shelfwise-client in an empty environment: gRPC, and nothing of the engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.programs import missing
from tests.serving.conftest import Harness

ROOT = Path(__file__).parents[3]
PROGRAM = """
import asyncio, json, sys
from importlib.metadata import distributions
from shelfwise_client import AsyncClient, Client, Event, RecommendQuery, ServiceError

async def titles(address):
    async with AsyncClient(address) as client:
        page = await client.recommend(RecommendQuery(user_id="u", page_size=1))
    return [item.title for item in page.items]

with Client(sys.argv[1]) as client:
    new = client.record_events([Event("u", "i7", "purchase")]).new_count
    try:
        client.recommend(RecommendQuery(filter="nope = 1"))
    except ServiceError as error:
        refused = [error.code.name, error.reason, error.violations[0].field, bool(error.request_id)]
print(json.dumps({
    "installed": sorted(found.name for found in distributions()),
    "roots": sorted({name.split(".")[0] for name in sys.modules}),
    "file": sys.modules["shelfwise_client"].__file__,
    "answers": [new, refused, asyncio.run(titles(sys.argv[1]))],
}))
"""


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env={"PATH": ""}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment in which pip has installed the client's wheel, and what that asks for."""
    folder = tmp_path_factory.mktemp("storefront")
    source = shutil.copytree(ROOT / "clients" / "python", folder / "source")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(build, check=True, timeout=240)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    install = [*pip, "--python", str(python), "install", "-c", str(ROOT / "constraints.txt"), str(wheel)]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(install, env=clean, capture_output=True, text=True, timeout=240)
    if done.returncode != 0:
        said = done.stderr.strip()[-200:]
        missing(f"the client's wheel is not tested: pip found no grpcio ({said})", "pip download grpcio")
    return python


def test_a_storefront_needs_grpc_alone(environment: Path, server: Harness, tmp_path: Path) -> None:
    found = json.loads(run(str(environment), "-c", PROGRAM, server.address, cwd=tmp_path))
    assert Path(found["file"]).is_relative_to(environment.parents[1])
    assert found["installed"] == [
        "googleapis-common-protos",
        "grpcio",
        "protobuf",
        "shelfwise-client",
        "typing_extensions",
    ]
    assert not {"torch", "numpy", "polars", "faiss", "serving", "conf", "rich"} & set(found["roots"])
    assert found["answers"] == [1, ["INVALID_ARGUMENT", "FILTER_INVALID", "filter", True], ["Item 8"]]
