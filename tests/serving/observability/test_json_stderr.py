"""`log_format=json`: whatever is written to standard error is a JSON object per line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trustme

from serving.observability.json_stderr import forward
from shelfwise_client import Client, ServiceError
from tests.faults.conftest import Processes, processes, trained_store  # noqa: F401 - fixtures
from tests.faults.server_process import ROOT
from tests.processes import children
from tests.serving.conftest import until


def wrapped(text: bytes) -> list[dict[str, Any]]:
    """Return what the forwarder makes of a text."""
    (read_in, write_in), (read_out, write_out) = os.pipe(), os.pipe()
    os.write(write_in, text)
    os.close(write_in)
    forward(read_in, write_out)
    os.close(write_out)
    with os.fdopen(read_out, "rb") as file:
        lines = file.read().decode().splitlines()
    os.close(read_in)
    return [json.loads(line) for line in lines]


def test_lines_of_the_core_get_their_level_and_source() -> None:
    line = b"E0000 00:00:1764444444.123456   12345 ssl_transport_security.cc:1884] Handshake failed: wrong\n"
    [found] = wrapped(line)
    assert found.pop("time")
    assert found == {
        "level": "ERROR",
        "logger": "grpc.core",
        "message": "Handshake failed: wrong",
        "source": "ssl_transport_security.cc:1884",
    }
    assert wrapped(line.replace(b"E0", b"I0", 1))[0]["level"] == "INFO"


def test_json_objects_are_left_alone_and_everything_else_is_wrapped() -> None:
    found = wrapped(b'{"logger": "a", "x": 1}\n[1]\n{half\n\nl\xc3\xa4ngst \xff kein "JSON"\r\nno end')
    assert found[0] == {"logger": "a", "x": 1}
    assert [line["message"] for line in found[1:]] == ["[1]", "{half", 'längst \ufffd kein "JSON"', "no end"]
    assert {line["logger"] for line in found[1:]} == {"stderr"}


def test_a_traceback_is_one_line() -> None:
    text = b"""Traceback (most recent call last):
  File "a.py", line 1, in f
    1 / 0
ZeroDivisionError: division by zero

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "b.py", line 2, in g
ValueError: no
after
"""
    found = wrapped(text)
    assert [line["message"] for line in found] == [
        "ZeroDivisionError: division by zero",
        "During handling of the above exception, another exception occurred:",
        "ValueError: no",
        "after",
    ]
    assert found[0]["exception"].splitlines()[2] == "    1 / 0"
    assert [line["level"] for line in found] == ["ERROR", "WARNING", "ERROR", "WARNING"]


def test_a_log_line_of_another_thread_within_a_traceback_stays_a_line() -> None:
    text = b"""Traceback (most recent call last):
  File "a.py", line 1, in f
{"logger": "a", "x": 1}
    1 / 0
ZeroDivisionError: division by zero
"""
    record, error = wrapped(text)
    assert record == {"logger": "a", "x": 1}
    assert error["message"] == "ZeroDivisionError: division by zero"
    assert error["exception"].splitlines() == [line for line in text.decode().splitlines() if line[0] != "{"]


def test_an_unfinished_traceback_is_written_after_a_while_and_at_the_end() -> None:
    (read_in, write_in), (read_out, write_out) = os.pipe(), os.pipe()
    thread = threading.Thread(target=forward, args=(read_in, write_out))
    thread.start()
    os.write(write_in, b"Traceback (most recent call last):\n  File\n")
    assert json.loads(os.read(read_out, 9999))["exception"] == "Traceback (most recent call last):\n  File"
    os.close(write_in)
    thread.join(10)
    assert not thread.is_alive()
    for descriptor in (read_in, read_out, write_out):
        os.close(descriptor)


PROGRAM = """
import ctypes, faulthandler, os, subprocess, sys, threading, warnings
from serving.observability.logs import start_logging
from conf.serving import LogFormat
import logging
start_logging(LogFormat.json, False)
start_logging(LogFormat.json, False)
logging.getLogger("x").error("from logging", extra={"a": 1})
warnings.warn("careful")
os.write(2, b"from a library\\n")
subprocess.run([sys.executable, "-c", "import sys; sys.exit('from a child')"])
thread = threading.Thread(target=lambda: 1 / 0)
thread.start(); thread.join()
for number in range(3000):
    os.write(2, b"line %05d %s\\n" % (number, b"x" * 50))
"""
ENDS = {
    "end": "",
    "exception": "raise RuntimeError('the end')",
    "crash": "faulthandler.enable(); ctypes.string_at(0)",
    "kill": "os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("how", ENDS)
def test_no_line_is_lost_however_the_process_ends(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + ENDS[how]], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    found = [json.loads(line) for line in done.stderr.splitlines()]
    messages = [line["message"] for line in found]
    assert found[0] == {**found[0], "logger": "x", "message": "from logging", "a": 1}
    assert "from a library" in messages
    assert "from a child" in messages
    assert "ZeroDivisionError: division by zero" in messages
    assert any("careful" in message for message in messages)
    assert [m for m in messages if m.startswith("line ")] == [f"line {n:05d} {'x' * 50}" for n in range(3000)]
    assert ("RuntimeError: the end" in messages) == (how == "exception")
    assert any("Segmentation fault" in message for message in messages) == (how == "crash")


def certificate(folder: Path) -> dict[str, str]:
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    return {"tls.certificate": str(folder / "cert.pem"), "tls.key": str(folder / "key.pem")}


def test_tls_errors_of_a_server_are_json(
    processes: Processes,  # noqa: F811
    tmp_path: Path,
    trained_store: Path,  # noqa: F811
) -> None:
    settings = {"log_format": "json", "log_requests": True, **certificate(tmp_path)}
    server = processes.begin(processes.command(real=True, store=trained_store, **settings)).ready(120)
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as garbage:
        garbage.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        garbage.settimeout(10)
        garbage.recv(100)
    with Client(server.address, timeout=3.0) as plain, pytest.raises(ServiceError):
        plain.status()
    until(lambda: "Handshake failed" in server.err.read_text())
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.err.read_text().splitlines()]
    core = [line for line in lines if line["logger"] == "grpc.core"]
    failed = [line for line in core if "Handshake failed" in line["message"]]
    assert failed
    assert {line["level"] for line in failed} <= {"INFO", "ERROR"}  # as the core says itself
    assert all(line["source"].partition(":")[0].endswith(".cc") for line in core)


def test_the_processes_of_the_model_write_to_the_same_pipe(
    processes: Processes,  # noqa: F811
    trained_store: Path,  # noqa: F811
) -> None:
    words = processes.command(real=True, store=trained_store, log_format="json")
    server = processes.begin(words).ready(120)
    own = os.readlink(f"/proc/{server.process.pid}/fd/2")
    assert own.startswith("pipe:")
    found = {}
    for child in children(server.process.pid):
        for pid in (child, *children(child)):
            if b"json_stderr.py" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                found[pid] = os.readlink(f"/proc/{pid}/fd/2")
    assert len(found) == 2  # the fork server, and the model's process
    assert set(found.values()) == {own}


def test_an_error_at_the_start_is_json_too(tmp_path: Path) -> None:
    words = [sys.executable, "shelfwise.py", "serve", f"artifacts={tmp_path}", "log_format=json"]
    for extra in ([], ["workers=2"]):
        done = subprocess.run([*words, *extra], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode in (1, 2)
        messages = [json.loads(line)["message"] for line in done.stderr.splitlines()]
        assert any("no CURRENT here" in message for message in messages)


def test_the_forwarder_outlives_signals_to_all_processes_and_ends_with_the_last() -> None:
    code = (
        "import time; from serving.observability.json_stderr import capture_stderr;"
        "capture_stderr(); print(1, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    [forwarder] = children(process.pid)
    until(lambda: b"-I" in Path(f"/proc/{forwarder}/cmdline").read_bytes())
    time.sleep(0.5)  # it has set its signal handlers
    os.kill(forwarder, signal.SIGTERM)
    os.kill(forwarder, signal.SIGINT)
    time.sleep(0.2)
    assert children(process.pid) == [forwarder]
    process.kill()
    process.wait(20)
    process.stdout.close()
    until(lambda: not Path(f"/proc/{forwarder}").exists())
