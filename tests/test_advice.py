"""What an error message tells the user to type is typed here, as a shell hands it on, and works."""

from __future__ import annotations

import shlex
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from conf.composition.compose import compose_command
from conf.errors import InputError
from features.prepare import prepare

ITEMS = "item_id,title\n1,Hat\n2,Cap\n"
EVENTS = "user_id,item_id,event,timestamp\nu,1,view,2024-05-01\nu,2,view,2024-05-02\n"
AMBIGUOUS = b"user_id,item_id,event,timestamp\nu,1,view,05/01/2024\nu,2,view,05/02/2024\n"

CASES: dict[str, tuple[bytes, bytes, list[str]]] = {
    "a header near the name": (b"ItemID,title\n1,Hat\n2,Cap\n", EVENTS.encode(), []),
    "a header with a blank": (b"item id,title\n1,Hat\n2,Cap\n", EVENTS.encode(), []),
    "a header with signs": ("item_id (Größe),title\n1,Hat\n2,Cap\n".encode(), EVENTS.encode(), []),
    "no UTF-8": ("item_id,title\n1,Hüte\n2,Cap\n".encode("cp1252"), EVENTS.encode(), []),
    "the name of the text": (b"item_id,item_text\n1,Hat\n2,Cap\n", EVENTS.encode(), []),
    "a price in words": (b"item_id,title,price\n1,Hat,much\n2,Cap,more\n", EVENTS.encode(), []),
    "a kind with blanks": (
        ITEMS.encode(), EVENTS.replace("view", "Blick (kurz)").encode(),
        ["data.event_weights={view: 1}"],
    ),
    "a plain kind": (
        ITEMS.encode(), EVENTS.replace("view", "look").encode(), ["data.event_weights={view: 1}"],
    ),
    "an ambiguous day": (ITEMS.encode(), AMBIGUOUS, []),
    "the setting of another adapter": (
        ITEMS.encode(), EVENTS.replace("user_id", "Kunde Nr.").encode(), ["data.user_column=Kunde Nr."],
    ),
}  # fmt: skip


def _prepare(folder: Path, overrides: list[str]) -> None:
    config = compose_command("prepare", [f"work_dir={folder / 'work'}", *overrides])
    prepare(config, Console(file=StringIO()))


@pytest.mark.parametrize(
    "names", [("items.csv", "events.csv"), ("Käufe [2024].csv", "Ereignisse & mehr.csv")]
)
@pytest.mark.parametrize("case", CASES)
def test_the_settings_that_a_message_names_work(tmp_path: Path, case: str, names: tuple[str, str]) -> None:
    items, events, overrides = CASES[case]
    for name, content in zip(names, (items, events), strict=True):
        (tmp_path / name).write_bytes(content)
    tables = [f"data.items={tmp_path / names[0]}", f"data.events={tmp_path / names[1]}"]
    with pytest.raises(InputError) as caught:
        _prepare(tmp_path, [*tables, *overrides])
    advice = str(caught.value).partition("): ")[2] or str(caught.value).partition(": ")[2]
    words = shlex.split(advice.splitlines()[0])
    typed = [word.rstrip(",;") for word in words if word.startswith("data.") and "=" in word]
    typed = [word for word in typed if "max_reject_fraction" not in word and "adapter" not in word]
    assert typed, caught.value
    kept = [o for o in overrides if not o.startswith("data.user_column")]
    _prepare(tmp_path, [*tables, *kept, typed[0]])
    assert (tmp_path / "work" / "dataset" / "events.parquet").is_file()


def test_paths_from_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "items.csv").write_text(ITEMS)
    _prepare(tmp_path, ["data.items=~/items.csv"])
    assert (tmp_path / "work" / "dataset" / "items.parquet").is_file()
