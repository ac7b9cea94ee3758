"""buf lints the proto, compares it with the released one, and calls a server by reflection."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from google import api

from tests import programs
from tests.serving.conftest import Harness

PROTO = Path(__file__).parents[2] / "proto"
FILE = "shelfwise/v1/recommendations.proto"


@pytest.fixture(scope="module")
def buf(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Command that runs buf."""
    return programs.buf(tmp_path_factory.mktemp("buf"))


def image(folder: Path, text: str | None = None) -> Path:
    """Compile the proto, or another text in its place, with what it imports and its comments."""
    source = folder / FILE
    source.parent.mkdir(parents=True)
    source.write_text((PROTO / FILE).read_text() if text is None else text)
    compiled = folder / "image.binpb"
    includes = [f"-I{folder}", f"-I{Path(api.__path__[0]).parents[1]}"]
    options = ["--include_imports", "--include_source_info", f"--descriptor_set_out={compiled}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *includes, *options, FILE], check=True)
    return compiled


def findings(command: list[str]) -> list[str]:
    """Return the names of the rules that buf finds violated, each once."""
    arguments = ["--config", str(PROTO / "buf.yaml"), "--error-format", "json"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 100), done.stderr  # 100: there are findings
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode == 0) == (not found)
    return sorted({finding["type"] for finding in found})


def newest_release() -> Path:
    """Return the image of the last released proto."""
    images = (PROTO / "released").glob("v*.binpb")
    return max(images, key=lambda path: [int(part) for part in path.stem[1:].split(".")])


def changed(old: str, new: str) -> str:
    text = (PROTO / FILE).read_text()
    assert text.count(old) == 1
    return text.replace(old, new)


def test_the_proto_is_clean_under_the_standard_rules(buf: list[str], tmp_path: Path) -> None:
    assert findings([*buf, "lint", str(image(tmp_path))]) == []


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("double p_click = 5;", "double pClick = 5;", "FIELD_LOWER_SNAKE_CASE"),
        ("rpc GetItem(GetItemRequest)", "rpc GetItem(GetStatusRequest)", "RPC_REQUEST_STANDARD_NAME"),
        ("package shelfwise.v1;", "package shelfwise;", "PACKAGE_VERSION_SUFFIX"),
    ],
)
def test_a_slip_is_found(buf: list[str], tmp_path: Path, old: str, new: str, rule: str) -> None:
    assert rule in findings([*buf, "lint", str(image(tmp_path, changed(old, new)))])


def test_the_proto_breaks_no_caller_of_the_released_one(buf: list[str], tmp_path: Path) -> None:
    assert findings([*buf, "breaking", str(image(tmp_path)), "--against", str(newest_release())]) == []


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("  optional double p_click = 5;\n", "", "FIELD_NO_DELETE"),
        ("double p_click = 5;", "double click = 5;", "FIELD_SAME_NAME"),
        ("double similarity = 4;", "float similarity = 4;", "FIELD_SAME_TYPE"),
        ("rpc GetItem(", "rpc ReadItem(", "RPC_NO_DELETE"),
        ("    USER_ID = 1;", "    REASON_USER_ID = 1;", "ENUM_VALUE_SAME_NAME"),
    ],
)
def test_a_change_that_breaks_callers_is_found(
    buf: list[str], tmp_path: Path, old: str, new: str, rule: str
) -> None:
    compiled = image(tmp_path, changed(old, new))
    assert rule in findings([*buf, "breaking", str(compiled), "--against", str(newest_release())])


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_a_client_of_another_project_reads_the_contract_by_reflection(
    buf: list[str], server: Harness, version: str
) -> None:
    options = ["--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", f"grpc-{version}"]
    url = f"http://{server.address}"

    def curl(*arguments: str) -> str:
        command = [*buf, "curl", *options, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    methods = curl("--list-methods", url).split()
    assert "grpc.reflection.v1.ServerReflection/ServerReflectionInfo" in methods
    assert "shelfwise.v1.RecommendationService/UpdateItem" in methods
    page = json.loads(curl("-d", '{"page_size": 2}', f"{url}/shelfwise.v1.RecommendationService/Recommend"))
    assert [item["itemId"] for item in page["items"]] == ["i0", "i1"]
