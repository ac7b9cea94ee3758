"""Every command line of the program in `deploy/`: where it stands, and its words after `shelfwise`."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator

from tests.deploy.manifests import DEPLOY, OVERLAYS, Object, compose, containers, joined, pod_templates

CommandLine = tuple[str, list[str]]


def command_lines() -> Iterator[CommandLine]:
    """Yield where a command line stands, and its words after `shelfwise`."""
    yield from _of_kubernetes()
    yield from _of_compose()
    yield from _of_the_image()
    yield from _of_systemd()
    for line in (DEPLOY / "cron" / "shelfwise").read_text().splitlines():
        if "/bin/shelfwise " in line:
            yield "cron", shlex.split(line.partition("/bin/shelfwise ")[2])
    yield "airflow", airflow_command()[1:]


def of(place: str) -> list[str]:
    """Return the words of the one command line at a place."""
    (words,) = (words for where, words in command_lines() if where == place)
    return words


def _of_kubernetes() -> Iterator[CommandLine]:
    for overlay in OVERLAYS:
        for name, template in pod_templates(overlay).items():
            for container in containers(template):
                words = container.get("args", [])
                if words[:1] == ["shelfwise"]:
                    yield f"kubernetes/{overlay}/{name}", [_expanded(w, container) for w in words[1:]]


def _expanded(word: str, container: Object) -> str:
    """Replace $(NAME) by the variable of the container, as the kubelet does."""
    variables = {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}
    return re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], word)


def _of_compose() -> Iterator[CommandLine]:
    for name, service in compose()["services"].items():
        for words in (service.get("command", []), service.get("healthcheck", {}).get("test", [])[1:]):
            if words[:1] == ["shelfwise"]:
                yield f"compose/{name}", words[1:]
    for line in (DEPLOY / "compose" / "make-secrets.sh").read_text().splitlines():
        if "{SHELFWISE:-shelfwise} " in line:
            yield "compose/make-secrets.sh", shlex.split(line.partition("} ")[2].removesuffix(")"))


def _of_the_image() -> Iterator[CommandLine]:
    for line in joined((DEPLOY / "image" / "Dockerfile").read_text()):
        for words in re.findall(r"^(?:CMD|HEALTHCHECK .*CMD) (\[.*\])", line):
            if json.loads(words) != ["shelfwise", "--help"]:
                yield "image/CMD", json.loads(words)[1:]
        if line.startswith("RUN "):
            for words in re.findall(r"&& shelfwise ([a-z][^&]*)", line):
                yield "image/RUN", shlex.split(words.replace("$CPU_LEVEL", "x86-64-v3"))


def _of_systemd() -> Iterator[CommandLine]:
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        lines = joined(unit.read_text())
        variables = [line.split("=", 2)[1:] for line in lines if re.match(r"Environment=\w+=", line)]
        for line in lines:
            if line.startswith("ExecStart="):
                for name, value in variables:
                    line = line.replace(f"${{{name}}}", value)
                yield f"systemd/{unit.name}", shlex.split(line.partition("=")[2])[1:]


def airflow_command() -> list[str]:
    """Return the words of the command that the DAG runs, without running its module."""
    tree = ast.parse((DEPLOY / "airflow" / "shelfwise_retrain.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "COMMAND":
            assert node.value is not None
            words: list[str] = ast.literal_eval(node.value)
            return words
    raise AssertionError("the DAG has no COMMAND")
