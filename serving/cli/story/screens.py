"""Layout of scenes: headings, sentences and tables, readable in logs without colours."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH = 110
"""Width in logs; a terminal has its own."""
ROWS = 8
"""Items of a list that a screen shows."""
NEW = "+"
"""Mark of an item that is not in the history or the former list."""


def wide_enough(console: Console) -> Console:
    """Return a console for the same stream that does not truncate to 80 columns in logs."""
    if console.is_terminal or console.width >= WIDTH:
        return console
    return Console(file=console.file, width=WIDTH)


class Screen:
    """Prints scenes."""

    def __init__(self, console: Console) -> None:
        """Print to a console."""
        self.console = console

    def heading(self, number: int, of: int, title: str) -> None:
        """Begin a scene."""
        self.console.print()
        self.console.rule(f"[bold]{number} of {of}: {escape(title)}", align="left")

    def say(self, *sentences: str) -> None:
        """Print plain sentences, one paragraph."""
        self.console.print(" ".join(sentences), markup=False, highlight=False)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
        """Print a table; columns named `#` or `=...` are as wide as needed, the others share the rest."""
        table = Table(title=escape(title) if title else None, title_justify="left", expand=True)
        for name in columns:
            if name[0] in "#=":
                table.add_column(escape(name.removeprefix("=")), no_wrap=True)
            else:
                table.add_column(escape(name), ratio=1, overflow="ellipsis", no_wrap=True)
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self.console.print(table)


def marked(item: str, title: str, known: Collection[str]) -> str:
    """Return a title, prefixed with a mark unless the item is known."""
    return f"{'  ' if item in known else f'{NEW} '}{title}"


def column_rows(columns: Sequence[Sequence[str]], numbered: bool = True) -> list[list[str]]:
    """Transpose columns of up to `ROWS` cells into rows, padded, by default with row numbers."""
    height = min(max(map(len, columns), default=0), ROWS)
    return [
        [*([str(row + 1)] if numbered else []), *(c[row] if row < len(c) else "" for c in columns)]
        for row in range(height)
    ]


def listed(counts: Sequence[tuple[str, int]]) -> str:
    """Return `a 3, b 2` for counted names, with underscores as blanks."""
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts)
