from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.text_encoder import UNTRAINED, measure, to_markdown
from conf.errors import InputError
from tests.synthetic import World

QUIET = Console(quiet=True)


@pytest.fixture
def settings(tmp_path: Path, world: World, bert: Path) -> list[str]:
    items, events = world.write(tmp_path / "raw")
    return [
        f"data.items={items}", f"data.events={events}", "data.text_fields=[title]", "split=global_time",
        f"text_encoder.model={bert}", "text_encoder.max_tokens=16", "text_encoder.precision=fp32",
        "text_encoder.max_steps=8", "text_encoder.validate_every=4", "text_encoder.learning_rate=2e-3",
        "text_encoder.affinity_steps=20", "threads=1",
    ]  # fmt: skip


def test_a_variation_stands_beside_the_base_and_the_untouched_encoder(
    settings: list[str], tmp_path: Path
) -> None:
    variations = {"Frozen": ["text_encoder.mode=frozen"], "No affinity": ["text_encoder.affinity_steps=0"]}
    lines = measure(variations, settings, tmp_path / "runs", QUIET)
    by_name = {line["name"]: line for line in lines}
    assert [*by_name] == [UNTRAINED, "base", "Frozen", "No affinity"]
    as_it_comes, base = by_name[UNTRAINED]["values"], by_name["base"]["values"]
    assert by_name["Frozen"]["values"]["all"] == as_it_comes["all"] != base["all"]
    assert by_name["No affinity"]["values"] == {name: base[name] for name in ("all", "cold")}
    assert "affinity all" not in as_it_comes
    assert 0 <= base["affinity all"] <= 1
    assert len(by_name["base"]["history"]) == 2
    assert by_name["Frozen"]["history"] == []
    table = to_markdown("world", "command", lines)
    assert all(f"| {name} |" in table for name in by_name)
    # Called again, nothing is trained.
    (tmp_path / "runs" / "base" / "text" / "stage.json").unlink()
    assert measure(variations, settings, tmp_path / "runs", QUIET) == lines
    assert not (tmp_path / "runs" / "base" / "text" / "stage.json").exists()


def test_a_wrong_setting_is_said_before_anything_is_trained(settings: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"text_encoder\.lora_rnk"):
        measure({"x": ["text_encoder.lora_rnk=4"]}, settings, tmp_path / "runs", QUIET)
    assert not (tmp_path / "runs").exists()
