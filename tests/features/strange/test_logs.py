"""Logs as data sets are published: without times, without a header, with colons between columns."""

from __future__ import annotations

import zipfile
from typing import Final

import pytest

from tests.features.strange.conftest import Shell

GAMES: Final = ("Dota 2", "The Elder Scrolls V Skyrim", "Team Fortress 2", "Left 4 Dead 2", "Path of Exile")
STEAM: Final = [
    (f"{151_603_712 + 977 * user}", GAMES[(user + n) % 5], kind, hours)
    for user in range(20)
    for n in range(3)
    for kind, hours in (("purchase", "1.0"), ("play", f"{10 * n + user}.5"))
]
TIMELESS: Final = "data.file_order=true split=leave_one_out"


@pytest.mark.parametrize("header", ["", "user-id,game-title,behavior-name,value"])
def test_a_log_of_games_without_times(shell: Shell, header: str) -> None:
    rest = "" if header else ",0"
    rows = "".join(",".join(row) + f"{rest}\n" for row in STEAM)
    shell.write(steam_csv=f"{header}\n" * bool(header) + rows)
    printed, settings = shell.inspect("steam.csv")
    assert TIMELESS in settings
    assert "steam.csv: no column says when it happened, so the order of the file is taken" in printed
    assert shell.table("events", "user_id", "item_id", "event", "order") == [
        (user, game, kind, n) for n, (user, game, kind, _) in enumerate(STEAM, 1)
    ]
    assert sorted(shell.table("items", "item_id")) == sorted((game,) for game in GAMES)
    assert (shell.info["has_time"], shell.info["has_order"]) == (False, True)


def test_ratings_without_times(shell: Shell) -> None:
    books = "".join(f"{n},Author {n},The book of {n} tales\n" for n in range(1, 31))
    ratings = [(user, 1 + (7 * user + 3 * n) % 30, 1 + n) for n in range(5) for user in range(1, 21)]
    shell.write(
        books_csv="book_id,authors,title\n" + books,
        ratings_csv="user_id,book_id,rating\n" + "".join(f"{u},{b},{r}\n" for u, b, r in ratings),
    )
    both = "data.items=books.csv data.events=ratings.csv"
    said = shell.refused(f"{both} data.columns.item_id=book_id")
    assert said.endswith(f"; where there are no times, {TIMELESS} takes the order of the file")
    said = shell.refused("data.items=books.csv data.events=ratings.csv")
    fix = said.partition("; where there are no times, ")[2].partition(" takes the order of the file")[0]
    shell.prepare(f"{both} {fix}")
    assert shell.table("events", "user_id", "item_id")[:5] == [
        ("1", str(1 + (7 + 3 * n) % 30)) for n in range(5)
    ]
    _, settings = shell.inspect("books.csv ratings.csv")
    assert TIMELESS in settings
    assert shell.info["events"] == 100


def test_the_order_of_several_files_goes_on(shell: Shell) -> None:
    shell.write(
        items_csv="item_id,title\n1,Hat\n2,Cap\n3,Coat\n",
        a_csv="user_id,item_id\nann,3\nben,1\n",
        b_csv="user_id,item_id\nann,1\nann,2\n",
    )
    shell.prepare("data.items=items.csv 'data.events=[a.csv, b.csv]' data.file_order=true")
    assert shell.table("events", "user_id", "item_id", "order") == [
        ("ann", "3", 1), ("ann", "1", 3), ("ann", "2", 4), ("ben", "1", 2),
    ]  # fmt: skip
    shell.write(a_csv="user_id,item_id,timestamp\nann,3,100\n")
    said = shell.refused("data.items=items.csv data.events=a.csv data.file_order=true")
    assert said == (
        "data.events (a.csv): it has a column 'timestamp', which says in which order events happened; leave "
        "data.file_order out"
    )


MOVIES: Final = (
    "1::Toy Story (1995)::Animation|Children's\n2::Matrix, The (1999)::Action\n3::Caf\xe9 (2000)::Drama\n"
)
RATINGS: Final = "1::2::5::978300760\n1::1::3::978302109\n2::3::4.5::978301968\n"


def test_movielens_with_double_colons(shell: Shell) -> None:
    shell.write(
        movies_dat=MOVIES.encode("latin-1"),
        ratings_dat=RATINGS,
        users_dat="1::F::1::10::48067\n2::M::56::16::70072\n",
    )
    with zipfile.ZipFile(shell.folder / "ml-1m.zip", "w") as archive:
        for name in ("movies.dat", "ratings.dat"):
            archive.write(shell.folder / name, f"ml-1m/{name}")
    for files, paths in (
        ("users.dat movies.dat ratings.dat", ("movies.dat", "ratings.dat")),
        ("ml-1m.zip", ("ml-1m.zip/ml-1m/movies.dat", "ml-1m.zip/ml-1m/ratings.dat")),
    ):
        printed, settings = shell.inspect(files)
        assert f"{paths[0]}: items of data=movielens\n" in printed
        assert settings == f"data=movielens data.items={paths[0]} data.events={paths[1]}"
        assert shell.table("items", "item_id", "title", "year") == [
            ("1", "Toy Story", 1995), ("2", "The Matrix", 1999), ("3", "Caf\xe9", 2000),
        ]  # fmt: skip
        assert shell.table("events", "user_id", "item_id", "value") == [
            ("1", "2", 5.0), ("1", "1", 3.0), ("2", "3", 4.5),
        ]  # fmt: skip


DRAWN: Final = {
    "mysql": "+---------+-------+\n| item_id | title |\n+---------+-------+\n| 1       | Hat   |\n",
    "psql": " item_id | title\n---------+-------\n 1       | Hat\n(1 row)\n",
    "markdown": "| item_id | title |\n|---|---|\n| 1 | Hat |\n",
    "with its query": "mysql> select * from items;\n+---------+-------+\n| item_id | title |\n",
}


@pytest.mark.parametrize("name", DRAWN)
def test_tables_drawn_for_the_screen(shell: Shell, name: str) -> None:
    shell.write(items_csv=DRAWN[name])
    said = (
        "items.csv: it is a table drawn for the screen; export it with `mysql --batch -e 'SELECT ...' > "
        "FILE.tsv` or `psql --csv -c 'SELECT ...' > FILE.csv`"
    )
    assert shell.refused("data.items=items.csv") == said
    assert said in shell.type("shelfwise inspect items.csv").printed


def test_bars_and_dashes_in_a_table_are_values(shell: Shell) -> None:
    shell.write(items_csv="item_id|title|size\n1|Hat|---\n---|---|---\n2|+1|--+--\n")
    shell.prepare("data.items=items.csv")
    assert shell.table("items", "item_id", "size") == [("1", "---"), ("---", "---"), ("2", "--+--")]


PAGE: Final = (
    "<html><head><meta charset=utf-8></head><body><table><tr><th>item_id</th></tr></table></body></html>"
)
SAVE: Final = "with the name of a spreadsheet; open it in a spreadsheet program and save it as .xlsx or .csv"


def test_pages_that_are_called_tables(shell: Shell) -> None:
    shell.write(
        page_xls=PAGE,
        office_xls='<?xml version="1.0"?>\n<Workbook/>',
        page_csv="\n<table><tr><td>1</td></tr></table>",
    )
    assert shell.refused("data.items=page.xls") == f"page.xls: it is a web page (HTML) {SAVE}"
    assert shell.refused("data.items=office.xls") == f"office.xls: it is an XML document {SAVE}"
    assert shell.refused("data.items=page.csv").endswith(
        "page.csv: it is a web page (HTML), no table; was the download signed in?"
    )
    assert f"page.xls: it is a web page (HTML) {SAVE}" in shell.type("shelfwise inspect page.xls").printed
