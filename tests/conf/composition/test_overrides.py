"""What messages tell users to type is what the command line reads."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from conf.composition.compose import compose_command
from conf.composition.overrides import override, with_key
from conf.errors import InputError

NAMES = [
    "sku", "Product ID", "Preis (EUR)", "Größe", "a,b", "a: b", "a=b", "x{y}", "[z]", "it's", 'say "hi"',
    "a\\b", "#", "1", "12.5", "true", "null", "$oid", "_id.$oid",
    "~x", "Käufe & Co", "50 % off", "названия", "a  b",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_column_of_any_name_can_be_mapped(name: str) -> None:
    [typed] = shlex.split(override("data.columns", {"items.item_id": name, "user_id": ["a", name]}))
    config = compose_command("prepare", [typed])
    assert config.data.columns == {"items.item_id": name, "user_id": ["a", name]}


@pytest.mark.parametrize("kind", NAMES)
def test_a_kind_of_any_name_can_be_weighed(kind: str) -> None:
    [typed] = shlex.split(override("data.event_weights", {kind: 0.5, "view": 1}))
    assert compose_command("prepare", [typed]).data.event_weights == {kind: 0.5, "view": 1.0}


@pytest.mark.parametrize(
    "path", ["~/shop.csv", "Käufe/Größen.csv", "sales[2024].csv", "[2024]/a.csv", "a b/c (1).csv"]
)
def test_paths_may_hold_what_shells_let_through(path: str) -> None:
    assert compose_command("prepare", [f"data.items={path}"]).data.items == path
    [typed] = shlex.split(override("data.items", path))
    assert compose_command("prepare", [typed]).data.items == path


def test_the_dotted_form_of_a_mapping_is_the_same() -> None:
    dotted = compose_command("prepare", ["data.columns.items.item_id=sku", "data.columns.user_id=customer"])
    assert dotted.data.columns == {"items.item_id": "sku", "user_id": "customer"}


def test_a_later_mapping_adds_to_an_earlier_one() -> None:
    config = compose_command(
        "prepare", ["data.columns={user_id: customer}", "data.columns={items.größe: size}"]
    )
    assert config.data.columns == {"user_id": "customer", "items.größe": "size"}


@pytest.mark.parametrize("text", ["data.columns={a: b", "data.größe=3", "data.items=[a.csv", "x y"])
def test_what_no_grammar_reads_is_still_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        compose_command("prepare", [text])
    assert "\n" not in str(caught.value)


def test_arguments_without_a_key_become_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.csv").touch()
    assert with_key(["work/a", "seed=1", "b@2026"], "systems") == ["seed=1", 'systems=[work/a, "b@2026"]']
    assert with_key(["a=b.csv", "none=b.csv"], "files") == ["none=b.csv", 'files=["a=b.csv"]']
    assert with_key(["--cfg", "job", "one"], "files") == ["--cfg", "job", "files=[one]"]
    assert with_key(["-m", "one", "seed=1,2"], "files") == ["-m", "seed=1,2", "files=[one]"]
    assert with_key(["seed=1"], "files") == ["seed=1"]
