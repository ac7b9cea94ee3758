from __future__ import annotations

import pytest

from conf.errors import InputError
from conf.schema import Adapter, DataConfig
from tests.features.conftest import Shop

# --- MovieLens ---

MOVIES = [
    (
        "1",
        "Toy Story",
        ["Animation", "Children's"],
        1995,
        "Toy Story. Genres: Animation, Children's. Year: 1995",
    ),
    ("2", "The Matrix", ["Action"], 1999, "The Matrix. Genres: Action. Year: 1999"),
]


def _check_movies(shop: Shop, movies: str, ratings: str) -> None:
    done = shop.prepare(
        DataConfig(adapter=Adapter.movielens, items=movies, events=ratings, default_event="rating")
    )
    table = done.table("items").select("item_id", "title", "genres", "year", "item_text")
    assert table.rows() == MOVIES
    assert done.table("events").drop("order").rows() == [
        ("7", "2", "rating", 100, 3.5),
        ("7", "1", "rating", 200, 5.0),
    ]


def test_movielens_with_double_colons(shop: Shop) -> None:
    movies = shop.write(
        "movies.dat", "1::Toy Story (1995)::Animation|Children's\n2::Matrix, The (1999)::Action\n"
    )
    _check_movies(shop, movies, shop.write("ratings.dat", "7::1::5::200\n7::2::3.5::100\n"))


def test_movielens_with_tabs_and_flags(shop: Shop) -> None:
    def line(movie: str, title: str, *genres: int) -> str:
        return "|".join(
            (movie, title, "01-Jan-1995", "", "http://x", *("1" if i in genres else "0" for i in range(19)))
        )

    movies = shop.write(
        "u.item", "\n".join((line("1", "Toy Story (1995)", 3, 4), line("2", "Matrix, The (1999)", 1)))
    )
    _check_movies(shop, movies, shop.write("u.data", "7\t1\t5\t200\n7\t2\t3.5\t100\n"))


def test_movielens_in_csv(shop: Shop) -> None:
    movies = shop.write(
        "movies.csv",
        'movieId,title,genres\n1,Toy Story (1995),Animation|Children\'s\n2,"Matrix, The (1999)",Action\n',
    )
    _check_movies(
        shop, movies, shop.write("ratings.csv", "userId,movieId,rating,timestamp\n7,1,5,200\n7,2,3.5,100\n")
    )


def test_movies_without_year_or_genres_and_in_latin1(shop: Shop) -> None:
    path = shop.folder / "movies.dat"
    path.write_bytes("1::Les Misérables::(no genres listed)\n2::Babylon 5 ::Sci-Fi\n".encode("latin-1"))
    ratings = shop.write("ratings.dat", "7::1::5::200\n")
    done = shop.prepare(DataConfig(adapter=Adapter.movielens, items=str(path), events=ratings))
    assert done.table("items")["item_text"].to_list() == ["Les Misérables", "Babylon 5. Genres: Sci-Fi"]


def test_a_file_that_is_not_movielens(shop: Shop) -> None:
    path = shop.write("movies.dat", "1::Toy Story\n")
    with pytest.raises(InputError, match="at least 3 fields divided by '::'"):
        shop.prepare(DataConfig(adapter=Adapter.movielens, items=path, events=path))


# --- RecBole ---


def test_atomic_files_of_recbole(shop: Shop) -> None:
    items = shop.write(
        "shop.item",
        "item_id:token\ttitle:token_seq\tclass:token_seq\tprice:float\n"
        "007\tRubber boots\tshoes rain\t19.5\n8\tStraw hat\thats\t\n",
    )
    events = shop.write(
        "shop.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\nann\t8\t4\t200\nann\t007\t3.5\t100\n",
    )
    done = shop.prepare(DataConfig(adapter=Adapter.recbole, items=items, events=events, default_event="rate"))
    assert done.table("items").select("item_id", "price", "item_text").rows() == [
        ("007", 19.5, "Rubber boots. Class: shoes rain"),
        ("8", None, "Straw hat. Class: hats"),
    ]
    assert done.table("events").drop("order").rows() == [
        ("ann", "007", "rate", 100, 3.5),
        ("ann", "8", "rate", 200, 4.0),
    ]


def test_sessions_of_recbole_and_a_column_by_another_name(shop: Shop) -> None:
    items = shop.write("shop.item", "track:token\tname:token_seq\n1\tBlue in green\n2\tSo what\n")
    events = shop.write("shop.inter", "session_id:token\ttrack:token\ttimestamp:float\ns1\t2\t100\n")
    done = shop.prepare(
        DataConfig(adapter=Adapter.recbole, items=items, events=events, columns={"item_id": "track"})
    )
    assert done.table("events").select("user_id", "item_id").rows() == [("s1", "2")]


def test_a_table_without_types_is_not_of_recbole(shop: Shop) -> None:
    path = shop.write("shop.item", "item_id\ttitle\n1\tBoots\n")
    with pytest.raises(InputError, match=r"shop.item\): column 'item_id' has no type.*data=files"):
        shop.prepare(DataConfig(adapter=Adapter.recbole, items=path, events=path))
