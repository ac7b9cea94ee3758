"""Every command line in `deploy/` is accepted by the program's own parser: no setting that does not exist."""

from __future__ import annotations

import re

import pytest

from conf.composition.compose import compose_command
from conf.errors import InputError
from shelfwise import split_command
from tests.deploy.command_lines import command_lines


def test_commands_are_found_everywhere() -> None:
    places = {place.partition("/")[0] for place, _ in command_lines()}
    assert places == {"kubernetes", "compose", "image", "systemd", "cron", "airflow"}
    names = {split_command(words)[0] for _, words in command_lines()}
    assert names == {
        "serve", "explore", "retrain", "backup", "health", "compile", "create-key", "fetch", "push"
    }  # fmt: skip


def test_every_command_line_is_accepted() -> None:
    refused = {}
    for place, words in command_lines():
        name, overrides = split_command(words)
        try:
            compose_command(name, overrides)
        except InputError as error:
            refused[f"{place}: {' '.join(words)}"] = str(error)
    assert refused == {}


def test_retrain_keeps_the_versions_of_the_servers_experiments() -> None:
    """Otherwise an arm loses its model after `retrain.keep_versions` nights."""
    named: dict[tuple[str, str], set[str | None]] = {}
    for place, words in command_lines():
        kind = place.partition("/")[0]
        machine = kind if kind in ("kubernetes", "compose") else "systemd"  # cron and Airflow use its server
        files = [w.partition("=")[2] for w in words if re.fullmatch(r"(retrain\.)?experiments=.*", w)]
        if words[0] in ("serve", "retrain") and kind != "image":
            named.setdefault((machine, words[0]), set()).add(files[0] if files else None)
    for machine in ("kubernetes", "compose", "systemd"):
        (file,) = named[machine, "retrain"]
        assert named[machine, "serve"] == {file} != {None}


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="drain_minutes"):
        compose_command("serve", ["drain_minutes=20"])
