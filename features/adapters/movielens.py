"""MovieLens (GroupLens) in its three layouts: `::` (1M, 10M), tabs and bars (100K), CSV (20M and later)."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.containers import unpacked
from features.files.readers import RawTable, readable, resolve_paths, scan_table
from features.ingest.raw_tables import Sources, refuse_paths, table_of
from features.ingest.required import require_columns

_RATINGS = {
    "userId": schema.USER_ID,
    "movieId": schema.ITEM_ID,
    "rating": "value",
    "timestamp": schema.TIMESTAMP,
}
_GENRES_100K = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|"
    "Mystery|Romance|Sci-Fi|Thriller|War|Western"
).split("|")
_FIRST_GENRE = 5
"""Column of the first genre flag in u.item."""
_NO_GENRES = "(no genres listed)"


def _one_path(source: object, setting: str) -> str:
    paths = resolve_paths(source, setting)
    if len(paths) != 1:
        raise InputError(f"{setting}: data.adapter=movielens reads one file, {len(paths)} are given")
    return paths[0]


def _split_lines(path: str, separator: str, fields: int) -> pl.DataFrame:
    """Split the lines of a file without header; the old files are Latin-1."""
    lines = pl.Series(
        "line", Path(unpacked(path)).read_bytes().decode("latin-1").splitlines(), dtype=pl.String
    )
    parts = lines.filter(lines != "").str.split(separator)
    if parts.is_empty() or not bool((parts.list.len() >= fields).all()):
        raise InputError(f"{path}: expected lines of at least {fields} fields divided by '{separator}'")
    return pl.DataFrame({f"column_{i}": parts.list.get(i) for i in range(int(parts.list.len().min()))})  # type: ignore[arg-type]


def _ratings(path: str) -> RawTable:
    name = f"data.events ({path})"
    if path.endswith(".csv"):
        table = scan_table(path, "data.events")
        require_columns(table, tuple(_RATINGS), "events")
        return RawTable(table.frame.rename(_RATINGS), True, name)
    separator = "::" if "::" in _head(path) else "\t"
    frame = _split_lines(path, separator, 4)
    return table_of(
        frame.select(pl.nth(range(4))).rename(dict(zip(frame.columns, _RATINGS.values(), strict=False))),
        path,
        name,
    )


def _head(path: str) -> str:
    with Path(unpacked(path)).open("rb") as file:
        return file.readline().decode("latin-1")


def _movies(path: str) -> pl.DataFrame:
    """Return item_id, written title and genres, a list of strings."""
    if path.endswith(".csv"):
        table = scan_table(path, "data.items")
        require_columns(table, ("movieId", "title", "genres"), "items")
        with readable(table.name):
            frame = table.frame.select("movieId", "title", "genres").collect()
        genres = pl.col("genres").str.split("|")
    elif "::" in _head(path):
        frame = _split_lines(path, "::", 3)
        genres = pl.nth(2).str.split("|")
    else:
        frame = _split_lines(path, "|", _FIRST_GENRE + len(_GENRES_100K))
        flags = (
            pl.when(pl.nth(_FIRST_GENRE + i) == "1").then(pl.lit(genre))
            for i, genre in enumerate(_GENRES_100K[1:], 1)
        )
        genres = pl.concat_list(list(flags))
    listed = genres.list.drop_nulls().list.set_difference([_NO_GENRES, ""])
    return frame.select(
        pl.nth(0).alias(schema.ITEM_ID), pl.nth(1).alias("written"), listed.list.sort().alias("genres")
    )


def read_movielens(config: DataConfig) -> Sources:
    """Read movies (title without its year, year, genres) and ratings (kept as `value`).

    Raises:
        InputError: missing files, or a layout that is not MovieLens's.
    """
    refuse_paths("movielens", {"data.columns": config.columns})
    if config.items is None or config.events is None:
        raise InputError("data.adapter=movielens: set data.items (movies) and data.events (ratings)")
    path = _one_path(config.items, "data.items")
    movies = _movies(path)
    split = pl.col("written").str.extract_groups(
        r"^\s*(?<title>.*?)\s*(?:\((?<year>\d{4})(?:-\d{0,4})?\))?\s*$"
    )
    movies = movies.with_columns(split.alias("split")).unnest("split")
    # "Matrix, The" becomes "The Matrix".
    natural = pl.col("title").str.replace(r"^(.*), (The|A|An|Le|La|Les|Das|Der|Die|El|Il)$", "$2 $1")
    items = movies.select(schema.ITEM_ID, natural.alias("title"), "genres", pl.col("year").cast(pl.Int64))
    events = _ratings(_one_path(config.events, "data.events"))
    return Sources(table_of(items, path, f"data.items ({path})"), events, ("title", "genres", "year"))
