from __future__ import annotations

from pathlib import Path

import pyarrow.fs
import pytest
from fsspec.implementations.arrow import ArrowFSWrapper

from conf.errors import InputError
from conf.operating import FetchConfig, PushConfig
from ranking.bundle.distribution.fetch import fetch_store
from ranking.bundle.distribution.push import push_store
from ranking.bundle.distribution.remote import Remote, without_credentials
from ranking.bundle.store import CURRENT, VERSIONS
from tests.ranking.bundle.distribution.stores import LARGE, publish, served


@pytest.fixture
def arrow(tmp_path: Path) -> Remote:
    """A folder through Arrow's file systems, as buckets are."""
    (tmp_path / "bucket").mkdir()
    return Remote(
        ArrowFSWrapper(pyarrow.fs.LocalFileSystem()), str(tmp_path / "bucket"), "arrow", seekable=True
    )


def test_a_store_goes_there_and_back_through_arrow(tmp_path: Path, arrow: Remote) -> None:
    store, server = tmp_path / "store", tmp_path / "server"
    assert arrow.current() is None
    first = publish(store, "one", large=1)
    push_store(store, arrow, PushConfig())
    found = fetch_store(arrow, server, FetchConfig())
    assert found is not None
    assert found.downloaded == LARGE + 3 + 200 + len("histories of one")
    assert served(server) == "one"
    second = publish(store, "two")
    push_store(store, arrow, PushConfig())
    assert arrow.names(VERSIONS) == [first, second]
    fetch_store(arrow, server, FetchConfig())
    assert served(server) == "two"


def test_parts_sizes_and_missing_files(arrow: Remote) -> None:
    arrow.write("inner/name", "0123456789")
    assert arrow.read_range("inner/name", 0, 4) == b"0123"
    assert arrow.read_range("inner/name", 4, 10) == b"456789"
    assert arrow.size("inner/name") == 10
    assert (arrow.size("inner/other"), arrow.read("other"), arrow.names("nothing")) == (None, None, [])
    with pytest.raises(InputError, match="inner/name: 10 bytes or fewer, not 11; push it again"):
        arrow.read_range("inner/name", 4, 11)
    arrow.remove("inner/name")
    arrow.remove("inner/name")
    assert arrow.size("inner/name") is None


def test_a_pointer_with_half_a_name_is_no_version(arrow: Remote) -> None:
    arrow.write(CURRENT, "20240601T120000Z-aaaa")
    with pytest.raises(
        InputError, match="arrow/CURRENT: holds no name of a version: '20240601T120000Z-aaaa'"
    ):
        arrow.current()


def test_addresses_lose_their_credentials() -> None:
    said = "cannot reach https://user:pa/ss@host/x?sig=abc&se=1 or s3://key:secret@bucket/y"
    assert without_credentials(said) == "cannot reach https://user:pa/ss@host/x or s3://bucket/y"
    assert without_credentials("https://user:pass@host/x") == "https://host/x"
    with pytest.raises(InputError, match="^remote: s3:// cannot be opened") as error:
        Remote.open("s3://key:secret@")
    assert "secret" not in str(error.value)
