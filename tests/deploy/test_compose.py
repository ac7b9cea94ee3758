"""`compose.yaml`: valid by the Compose specification's schema, and true to the files beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jsonschema
import pytest
import yaml  # type: ignore[import-untyped]

from conf.composition.compose import compose_command
from serving.api.surfaces import read_surfaces
from serving.experiments.reading import read_experiments
from tests.deploy.manifests import DEPLOY, KUBERNETES, compose
from tests.programs import require

FOLDER = DEPLOY / "compose"
T = TypeVar("T")
SCHEMA = Path(__file__).parent / "compose_spec" / "compose-spec.json"


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def validator() -> Any:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def test_it_is_valid() -> None:
    assert [f"{e.json_path}: {e.message}" for e in validator().iter_errors(compose())] == []
    wrong = compose() | {"services": {"server": services()["server"] | {"memories": "1G"}}}
    assert [e.json_path for e in validator().iter_errors(wrong)] == ["$.services.server"]


def test_what_services_use_is_declared() -> None:
    content = compose()
    for name, service in services().items():
        assert set(service.get("secrets", [])) <= content["secrets"].keys(), name
        assert set(service["networks"]) <= content["networks"].keys()
        assert set(service.get("depends_on", {})) <= services().keys()
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "test" in services()[needed]["healthcheck"]
        for mount in service["volumes"]:
            source, target, *_ = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", mount).split(":")
            if source.startswith("."):
                assert (FOLDER / source).exists() or source == "./data", mount
            else:
                assert source in content["volumes"], mount
            assert target.startswith("/")
        files = " ".join([*service.get("command", []), *map(str, service.get("environment", {}).values())])
        for secret in re.findall(r"/run/secrets/(\w+)", files + str(service.get("healthcheck", ""))):
            assert secret in service["secrets"], f"{name}: {secret}"
    used = {secret for service in services().values() for secret in service.get("secrets", [])}
    assert used == content["secrets"].keys()


def test_services_are_locked_down() -> None:
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert int(service["user"].partition(":")[0]) > 0
        assert re.search(r":(\$\{\w+:-)?v?\d+\.\d+\.\d+(-\w+)?\}?$", service["image"]), service["image"]
        assert "memory" in service["deploy"]["resources"]["limits"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        if "profiles" not in service:
            assert "healthcheck" in service


def test_commands_can_append_to_the_audit_log_of_the_store() -> None:
    writing = {
        name: service["volumes"]
        for name, service in services().items()
        if service.get("command", ["", ""])[1] in ("serve", "backup", "retrain")
    }
    assert writing.keys() == {"server", "backup", "retrain"}
    for name, volumes in writing.items():
        assert "store:/srv/shelfwise" in volumes, name


def test_a_server_drains_before_it_is_killed() -> None:
    server = services()["server"]
    config: Any = compose_command("serve", server["command"][2:])
    assert int(server["stop_grace_period"].removesuffix("s")) >= config.drain_seconds + 10


def test_names_of_other_services_are_right() -> None:
    ports = {"server": {"50051", "9464"}, "redis": {"6379"}, "prometheus": {"9090"}}
    reached = 0
    for name, service in services().items():
        said = " ".join(service.get("command", []))
        for host, port in re.findall(r"(?:server=|\[|//)(\w+):(\d+)", said):
            if host in ports:
                reached += 1
                assert port in ports[host], f"{name}: {host}:{port}"
                assert set(service["networks"]) & set(services()[host]["networks"]), f"{name} -> {host}"
    assert reached >= 6
    scrape = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    targets = {t for job in scrape["scrape_configs"] for c in job["static_configs"] for t in c["targets"]}
    assert targets == {"server:9464", "127.0.0.1:9090"}
    assert set(services()["prometheus"]["networks"]) & set(services()["server"]["networks"])


def test_grafana_finds_its_dashboard_and_prometheus() -> None:
    source = yaml.safe_load((FOLDER / "grafana" / "datasources" / "prometheus.yaml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((FOLDER / "grafana" / "dashboards" / "shelfwise.yaml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    assert f"../grafana:{folder}:ro" in services()["grafana"]["volumes"]
    variables = json.loads((DEPLOY / "grafana" / "shelfwise.json").read_text())["templating"]["list"]
    assert [v["query"] for v in variables if v["type"] == "datasource"] == [source["datasources"][0]["type"]]


def read_examples(name: str, read: Callable[[Path], T]) -> T:
    """Read what the file has in its comments, but for the first one."""
    lines = (FOLDER / "config" / name).read_text().splitlines()[1:]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write("\n".join(line[2:] for line in lines if line.startswith("# ")))
        file.flush()
        return read(Path(file.name))


def test_settings_that_a_shop_edits_are_read_and_the_same_everywhere() -> None:
    assert read_surfaces(FOLDER / "config" / "surfaces.yaml") == {}
    assert read_experiments(FOLDER / "config" / "experiments.yaml") == ()
    assert read_examples("surfaces.yaml", read_surfaces)["home"].diversity == pytest.approx(0.2)
    assert [arm.share for arm in read_examples("experiments.yaml", read_experiments)[0].arms] == [0.5, 0.5]
    for file in (FOLDER / "config").iterdir():
        assert file.read_text() == (KUBERNETES / "base" / "config" / file.name).read_text()


def make_secrets(folder: Path, program: Path) -> subprocess.CompletedProcess[str]:
    """Run a copy of the script in a folder, with a program in place of the installed one."""
    require("openssl")
    (folder / "secrets").mkdir(exist_ok=True)
    shutil.copy(FOLDER / "make-secrets.sh", folder)
    return subprocess.run(
        [str(folder / "make-secrets.sh")],
        env=os.environ | {"SHELFWISE": str(program)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return a program that makes a file of keys as `create-key` does: for its owner alone."""
    stub = tmp_path / "shelfwise"
    stub.write_text(
        '#!/bin/sh\numask 077\necho "{}" >"${4#keys=}"\necho "added; shown this once:"\necho the-key\n'
    )
    stub.chmod(0o755)
    return stub


def test_secrets_are_made_once(tmp_path: Path, program: Path) -> None:
    for _ in range(2):
        done = make_secrets(tmp_path, program)
        assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # the second time there is nothing to make
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    declared = {Path(secret["file"]).name for secret in compose()["secrets"].values()}
    assert made.keys() == declared
    assert made["api_key"] == "the-key"
    assert re.fullmatch("[0-9a-f]{64}", made["redis_password"])
    assert made["redis_password"] != made["token_key"]
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_containers_can_read_a_file_of_keys_that_was_added_to(tmp_path: Path, program: Path) -> None:
    make_secrets(tmp_path, program)
    keys = tmp_path / "secrets" / "keys.json"
    keys.unlink()
    subprocess.run([program, "create-key", "name=shop", "scopes=[read,events]", f"keys={keys}"], check=True)
    assert keys.stat().st_mode & 0o777 == 0o600
    assert make_secrets(tmp_path, program).stdout == ""
    assert keys.stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize(("failing", "unmade"), [("shelfwise", "keys.json"), ("openssl", "token_key")])
def test_a_program_that_fails_ends_the_script(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch, failing: str, unmade: str
) -> None:
    folder = tmp_path / "failing"
    folder.mkdir()
    (folder / failing).write_text("#!/bin/sh\nexit 3\n")
    (folder / failing).chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        done = make_secrets(tmp_path, folder / failing if failing == "shelfwise" else program)
    assert done.returncode == 3
    assert f"made {unmade}" not in done.stdout
    assert make_secrets(tmp_path, program).returncode == 0
    assert (tmp_path / "secrets" / "api_key").read_text() == "the-key"
    assert re.fullmatch("[0-9a-f]{64}", (tmp_path / "secrets" / "token_key").read_text())
