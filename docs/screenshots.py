"""Take a picture of every view of the explorer for its page: `python -m docs.screenshots WORK_DIR`.

The explorer runs on the finished run in the work directory, with a server on a copy of it for the views that
need one. Each view is shown in the state that its entry in `explorer.registry` names as `example`, on a desk
and in light colours; one view is shown on a phone and in dark colours, too.
"""

from __future__ import annotations

import io
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from PIL import Image
from rich.console import Console

from explorer.registry import VIEWS
from explorer.view import Needs
from serving.cli.story.server import copied_store, running_server
from tests.browser.harness import Reader, chrome, explorer

FOLDER: Final = Path(__file__).parent / "screenshots"
COLOURS: Final = 128
"""Of a picture's palette: an eighth of the bytes of all colours, and no difference to see on these pages."""
PHONE: Final = "shopper"
DARK: Final = "shopper"


def picture(reader: Reader, path: str, file: Path) -> None:
    """Write a picture of a page as it opens, after its requests and charts have come to rest.

    Raises:
        RuntimeError: the page is one of a problem.

    """
    reader.open(path)
    if reader.all("h1[data-status]"):
        raise RuntimeError(f"{path}: {reader.text()}")
    reader.rest()
    found = Image.open(io.BytesIO(reader.driver.get_screenshot_as_png())).convert("RGB")
    found.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)


def take(work: Path) -> None:
    """Write all pictures.

    Args:
        work: directory of a finished run.

    """
    FOLDER.mkdir(exist_ok=True)
    artifacts = work / "artifacts"
    with ExitStack() as stack:
        settings = [f"artifacts={artifacts}"]
        if any(view.needs is Needs.server for view in VIEWS):
            store = stack.enter_context(copied_store(artifacts))
            server = stack.enter_context(running_server(store, Console(stderr=True)))
            settings += [f"server={server}", "write=true"]
        base = stack.enter_context(explorer(*settings))
        reader = Reader(stack.enter_context(chrome()), base)
        for view in VIEWS:
            picture(reader, view.path + view.example, FOLDER / f"{view.name}.png")
            if view.name == PHONE:
                reader.size(390)
                picture(reader, view.path + view.example, FOLDER / f"{view.name}-phone.png")
                reader.size(1280)
            if view.name == DARK:
                reader.scheme("dark")
                picture(reader, view.path + view.example, FOLDER / f"{view.name}-dark.png")
                reader.scheme("light")


if __name__ == "__main__":
    take(Path(sys.argv[1] if len(sys.argv) > 1 else "work/demo"))
