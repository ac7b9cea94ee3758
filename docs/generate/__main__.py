"""Write the generated reference pages: `python -m docs.generate`."""

from __future__ import annotations

from pathlib import Path

from docs.generate import api, settings

REFERENCE = Path(__file__).parents[1] / "reference"


def pages() -> dict[Path, str]:
    """Return the content that each generated page should have, by its path."""
    return {REFERENCE / "settings.md": settings.page(), REFERENCE / "api.md": api.page()}


if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text)
