"""`shelfwise health`, as probes and people run it."""

from __future__ import annotations

import io
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import trustme
from rich.console import Console

from conf.clients import ClientTlsConfig
from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.operating import HealthConfig
from conf.serving import TlsConfig
from serving.cli.operate.health import health
from serving.observability.health import RELOAD_HEALTH, STATE_HEALTH
from serving.transport.api_keys import create_key
from tests.serving.conftest import Harness, Servers


def asked(**settings: Any) -> tuple[int, str]:
    """Return exit code and line."""
    console = Console(file=io.StringIO(), width=200)
    code = 0
    try:
        health(HealthConfig(**settings), console)
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


@pytest.mark.parametrize("service", ["", "shelfwise.v1.RecommendationService", STATE_HEALTH, RELOAD_HEALTH])
def test_every_service_of_a_serving_server(server: Harness, service: str) -> None:
    name = f" {service}" if service else ""
    assert asked(address=server.address, service=service) == (0, f"{server.address}{name} SERVING\n")


def test_a_service_that_does_not_serve_is_code_1(server: Harness) -> None:
    server.call(server.running._health.set(False, STATE_HEALTH))
    line = f"{server.address} {STATE_HEALTH} NOT_SERVING\n"
    assert asked(address=server.address, service=STATE_HEALTH) == (1, line)
    assert asked(address=server.address)[0] == 0


def test_an_unknown_service_is_answered_with_those_there_are(server: Harness) -> None:
    with pytest.raises(
        InputError, match=r"no health service 'shelfwise.v1.state'; did you mean 'shelfwise.v1.State'"
    ) as told:
        asked(address=server.address, service="shelfwise.v1.state")
    assert RELOAD_HEALTH in str(told.value)


def test_no_server_is_named_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            InputError, match=f"no server answers at {address}; start one with `shelfwise serve`"
        ):
            asked(address=address)


def test_a_server_that_does_not_answer_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=f"{address} did not answer within 0.3 s; set timeout=SECONDS"):
            asked(address=address, timeout=0.3)


def test_health_needs_no_key(servers: Servers, tmp_path: Path) -> None:
    create_key(tmp_path / "keys.json", "shop", ["read"])
    server = servers.start(keys=str(tmp_path / "keys.json"), admin=None)
    assert asked(address=server.address)[0] == 0


def test_mutual_tls(servers: Servers, tmp_path: Path) -> None:
    authority = trustme.CA()
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key", "own", "own_key")}
    authority.cert_pem.write_to_path(str(files["ca"]))
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(str(files["cert"]))
    issued.private_key_pem.write_to_path(str(files["key"]))
    probe = authority.issue_cert("probe@shop")
    probe.cert_chain_pems[0].write_to_path(str(files["own"]))
    probe.private_key_pem.write_to_path(str(files["own_key"]))
    server = servers.start(tls=TlsConfig(str(files["cert"]), str(files["key"]), str(files["ca"])))
    tls = ClientTlsConfig(True, str(files["ca"]), str(files["own"]), str(files["own_key"]))
    assert asked(address=server.address, tls=tls)[0] == 0
    with pytest.raises(InputError, match="no server answers"):
        asked(address=server.address, tls=ClientTlsConfig(True, str(files["ca"])))
    with pytest.raises(InputError, match=r"or tls.enabled=true where it speaks TLS"):
        asked(address=server.address)
    with pytest.raises(InputError, match=re.escape(f"tls.ca: {tmp_path}/none.pem cannot be read")):
        asked(address=server.address, tls=ClientTlsConfig(True, f"{tmp_path}/none.pem"))


def test_the_settings_compose_and_are_checked() -> None:
    config: Any = compose_command("health", ["address=shop:1", "service=shelfwise.v1.State"])
    assert (config.address, config.service, config.timeout) == ("shop:1", "shelfwise.v1.State", 3.0)
    with pytest.raises(InputError, match="timeout must be positive"):
        compose_command("health", ["timeout=0"])
