"""The documentation site builds strictly, is complete, and asks nothing of the network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
LOADED = re.compile(
    r"<(?:script|img|iframe)\b[^>]*\bsrc=\"?([^\" >]+)"
    r"|<link\b[^>]*\brel=\"?stylesheet[^>]*\bhref=\"?([^\" >]+)"
)
"""What a browser fetches to show a page."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A freshly built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def pages(navigation: object) -> list[str]:
    """Return the sources of all pages of a navigation."""
    if isinstance(navigation, str):
        return [navigation]
    parts = navigation.values() if isinstance(navigation, dict) else navigation
    assert isinstance(parts, list) or isinstance(navigation, dict)
    return [page for part in parts for page in pages(part)]  # type: ignore[attr-defined]


def test_every_page_is_built_and_found_by_the_search(site: Path) -> None:
    named = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    built = [page.replace("README.md", "index.md").removesuffix(".md") + ".html" for page in named]
    assert [page for page in built if not (site / page).is_file()] == []
    entries = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    assert set(built) <= {entry["location"].partition("#")[0] for entry in entries}
    found = [e["location"] for e in entries if "alternating least squares" in e["text"].lower()]
    assert any(location.startswith("reference/settings.html") for location in found)


def test_what_pages_load_lies_in_the_site(site: Path) -> None:
    loaded = {
        (page, source or style)
        for page in site.rglob("*.html")
        for source, style in LOADED.findall(page.read_text())
    }
    assert len(loaded) > 20
    outside = {target for _, target in loaded if re.match(r"(https?:)?//", target)}
    assert outside == set()
    local = [(p, t.partition("?")[0]) for p, t in loaded if not t.startswith("data:")]
    missing = [t for p, t in local if p.name != "404.html" and not (p.parent / t).is_file()]
    assert missing == []


def test_no_diagram_waits_for_a_script_from_elsewhere(site: Path) -> None:
    assert [p.name for p in site.rglob("*.html") if 'class="mermaid"' in p.read_text()] == []
