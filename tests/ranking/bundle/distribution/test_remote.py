from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import InputError
from ranking.bundle.distribution.remote import Remote, without_credentials
from ranking.bundle.store import CURRENT


def test_a_pointer_with_half_a_name_is_no_version(tmp_path: Path) -> None:
    remote = Remote.open(f"file://{tmp_path}")
    remote.write(CURRENT, "20240601T120000Z-aaaa")
    with pytest.raises(InputError, match="CURRENT: holds no name of a version: '20240601T120000Z-aaaa'"):
        remote.current()


def test_addresses_lose_their_credentials() -> None:
    said = "cannot reach https://user:pa/ss@host/x?sig=abc&se=1 or s3://key:secret@bucket/y"
    assert without_credentials(said) == "cannot reach https://user:pa/ss@host/x or s3://bucket/y"
    assert without_credentials("https://user:pass@host/x") == "https://host/x"
    with pytest.raises(InputError, match="^remote: s3:// cannot be opened") as error:
        Remote.open("s3://key:secret@")
    assert "secret" not in str(error.value)
