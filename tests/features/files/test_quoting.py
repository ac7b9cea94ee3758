"""Stray quotation marks cost their own row at most; well-formed files are read as csv reads them."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import polars as pl
import pytest

from features.files.quoting import records, survey
from features.files.readers import MALFORMED, ROW, TextOptions, scan_table


def _records(text: str, width: int, separator: str = ",") -> list[list[str]]:
    return list(records(text.split("\n"), separator, width))


def _read(path: Path, content: str | bytes, options: TextOptions | None = None) -> pl.DataFrame:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return scan_table(str(path), "data.items", options or TextOptions()).frame.collect()


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ('1,TV 55",9', ["1", 'TV 55"', "9"]),
        (r'"1","TV \"55\", black","9"', ["1", 'TV "55", black', "9"]),
        (r'"1","C:\","9"', ["1", "C:\\", "9"]),
        ('1,TV 55" or 65",9', ["1", 'TV 55" or 65"', "9"]),
        ('1,"TV 55"" black",9', ["1", 'TV 55" black', "9"]),
        ('1,"TV 55" black",9', ["1", 'TV 55" black', "9"]),
        ('1,"TV 55"",9', ["1", 'TV 55"', "9"]),
        ('1,"TV, black",9', ["1", "TV, black", "9"]),
        ('1,"Best" boots,9', ["1", '"Best" boots', "9"]),
        ('1,"Boots,9', ["1", "Boots", "9"]),
        ('"1,Boots,9', ["1", "Boots", "9"]),
        ('1,Boots,"9', ["1", "Boots", "9"]),
        ('1,"Boots,"9"', ["1", "Boots", "9"]),
        ("1,,", ["1", "", ""]),
        ('"1","",""', ["1", "", ""]),
        ('1,"",9', ["1", "", "9"]),
    ],
)
def test_one_line(line: str, fields: list[str]) -> None:
    assert _records(f"{line}\n2,Hat,3", 3) == [fields, ["2", "Hat", "3"]]
    tabbed = line.replace(",", "\t")
    assert _records(f"{tabbed}\n2\tHat\t3", 3, "\t")[0] == [f.replace(",", "\t") for f in fields]


@pytest.mark.parametrize("opening", ['7,"Boots,9.99', '7,"Boots, red,9.99', '7,Boots,"9.99', '"7,Boots,9.99'])
@pytest.mark.parametrize("closing", ['13,Hat 55",3', '13,"Hat",3', '13,Hat,"3"', '13,"Hat, blue",3'])
def test_a_mark_that_closes_rows_later_swallows_none_of_them(opening: str, closing: str) -> None:
    lines = [f"{n},Hat {n},{n}.5" for n in range(1, 41)]
    lines[6], lines[12] = opening, closing
    read = _records("\n".join(lines), 3)
    assert [fields[0] for fields in read] == [str(n) for n in range(1, 41)]
    assert read[6] == opening.replace('"', "").split(",")
    assert read[39] == ["40", "Hat 40", "40.5"]


def test_a_table_of_words_alone_is_read_as_csv_says() -> None:
    """Two lines cannot tell a swallowed row from a description; the rules of CSV decide."""
    assert _records('kim,Hat\nann,"Nice\nwarm,soft"\nben,Scarf', 2)[1] == ["ann", "Nice\nwarm,soft"]


def test_a_mark_that_is_never_closed_costs_no_other_row() -> None:
    lines = [f"{n},Hat {n},{n}.5" for n in range(1, 3000)]
    lines[6] = '7,"Boots, red,9.99'
    read = _records("\n".join(lines), 3)
    assert [fields[0] for fields in read] == [str(n) for n in range(1, 3000)]
    assert read[6] == ["7", "Boots", " red", "9.99"], "one field too many: a reject"


def test_a_description_of_several_lines_stays_one_field() -> None:
    text = '1,"Warm, soft\n\nand ""cosy""; one,two",9\n2,"<p class="a">Red\nhat</p>",3\n3,Scarf,1'
    assert _records(text, 3) == [
        ["1", 'Warm, soft\n\nand "cosy"; one,two', "9"],
        ["2", '<p class="a">Red\nhat</p>', "3"],
        ["3", "Scarf", "1"],
    ]


def test_what_the_csv_module_writes_is_read_back() -> None:
    rng = random.Random(5)
    pieces = ["a", '"', '""', ",", "\n", " ", "9", "ü", ""]
    for _ in range(300):
        # A field of several lines is prose here: rows of the table's own shape inside would not be believed.
        table = [[str(n), "".join(rng.choices(pieces, k=6)).replace("\n", "\nso "), "9"] for n in range(10)]
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(table)
        assert _records(out.getvalue().removesuffix("\n"), 3) == table


def test_a_survey_tells_which_files_a_parser_may_trust(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for content, irregular, blank in (
        ('\ufeff"a","b"\r\n1,"x, ""y"""\r\n', False, False),
        ('a,b\n1,TV 55"\n', True, False),
        ('a,b\n1,TV 55" 65"\n', True, False),
        ('a,b\n1,"TV" x\n', True, False),
        ('a,b\n1,"x\ny"\n', True, False),
        ("a,b\n\n1,x\n", False, True),
        ("a,b\n,\n1,x\n", False, True),
    ):
        path.write_bytes(content.encode())
        found = survey(str(path), ",")
        assert (found.irregular, found.blank) == (irregular, blank), content


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt"])
def test_inches_in_any_column_of_any_text_table(tmp_path: Path, name: str) -> None:
    separator = "," if name == "t.csv" else "\t"
    lines = ["item_id,title,note", '1,TV 55",x', '2,Hat,5" brim', '3,"Boots,9', "4,Scarf,y"]
    read = _read(tmp_path / name, "\n".join(lines).replace(",", separator) + "\n")
    assert read.select("item_id", "title", "note").rows() == [
        ("1", 'TV 55"', "x"), ("2", "Hat", '5" brim'), ("3", "Boots", "9"), ("4", "Scarf", "y"),
    ]  # fmt: skip
    assert read[ROW].to_list() == [1, 2, 3, 4]
    assert read[MALFORMED].null_count() == 4


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    for quoted in ("Hat", 'Hat 5"'):
        read = _read(tmp_path / "t.csv", f"item_id,title\r\n\r\n1,{quoted}\r\n , \r\n,\r\n2,Scarf\r\n\r\n")
        assert read.select("item_id", "title").rows() == [("1", quoted), (" ", " "), ("2", "Scarf")]


@pytest.mark.parametrize("before", ["sep=;\n", "SEP=;\r\n", "\n\n", "# Report\n# 2024\n\n", "\ufeffsep=;\n"])
def test_what_stands_before_the_header_is_passed_over(tmp_path: Path, before: str) -> None:
    for title in ("Hat", 'Hat 5"'):
        read = _read(tmp_path / "t.csv", f"{before}item_id;title;price\n1;{title};2,5\n2;Scarf;3\n")
        assert read.drop("__file").rows() == [(1, "1", title, "2,5", None), (2, "2", "Scarf", "3", None)]


def test_a_header_may_begin_with_a_number_sign(tmp_path: Path) -> None:
    assert _read(tmp_path / "t.csv", "#,title\n1,Hat\n").columns[1:3] == ["#", "title"]


def test_names_of_columns_lose_their_blanks_and_stay_different(tmp_path: Path) -> None:
    read = _read(tmp_path / "t.csv", ' item_id ,"Product\xa0 name",,price,price,"a, b"\n1,Hat,x,2,3,c\n')
    assert read.columns[1:-2] == ["item_id", "Product name", "column_3", "price", "price_2", "a, b"]
    assert read.row(0)[1:-2] == ("1", "Hat", "x", "2", "3", "c")


def test_a_file_without_a_header(tmp_path: Path) -> None:
    for title in ("Hat", 'Hat 5"'):
        read = _read(tmp_path / "t.dat", f"1,{title},3\n2,Scarf,4\n", TextOptions(header=False))
        assert read.select("column_1", "column_2", "column_3").rows() == [
            ("1", title, "3"),
            ("2", "Scarf", "4"),
        ]
        assert read[ROW].to_list() == [1, 2]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_encodings_that_a_byte_order_mark_names(tmp_path: Path, encoding: str) -> None:
    read = _read(tmp_path / "t.csv", "item_id\ttitle\r\n1\tGrüße\r\n".encode(encoding))
    assert read.select("item_id", "title").rows() == [("1", "Grüße")]


def test_an_encoding_that_is_given(tmp_path: Path) -> None:
    read = _read(tmp_path / "t.csv", b"item_id;title\n1;caf\xe9 5 \x80\n", TextOptions(encoding="cp1252"))
    assert read["title"].to_list() == ["café 5 €"]


def test_marks_around_several_fields_of_a_tab_separated_row_quote_nothing(tmp_path: Path) -> None:
    frame = _read(
        tmp_path / "t.tsv", 'id\ttitle\tnote\n1\t"Boots\t9 in"\n2\t"Hat\tred"\tc\n3\t"A ""B"""\tc\n'
    )
    assert frame.select("id", "title", "note").rows()[2] == ("3", 'A "B"', "c")
    assert frame.select("title", "note").rows()[:2] == [("Boots", "9 in"), ("Hat\tred", "c")]
    assert frame[MALFORMED].null_count() == 3
