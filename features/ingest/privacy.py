"""Pseudonyms for user ids: a keyed hash, which cannot be linked to a person without the key."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from dataclasses import dataclass

import polars as pl

from conf.errors import InputError
from conf.schema import PrivacyConfig

PSEUDONYM = "pseudonym:"
"""Prefix of user ids in tables that are pseudonyms already, under the same key."""
_LENGTH = 32
"""Hex digits of a pseudonym: 128 bits, beyond accidental collisions."""
_IS_PSEUDONYM = re.compile(f"[0-9a-f]{{{_LENGTH}}}")


@dataclass(frozen=True)
class Pseudonyms:
    """Replaces user ids by HMAC-SHA256 under one key; the same id always gets the same pseudonym."""

    key: bytes

    def __repr__(self) -> str:
        """Keep the key out of logs and tracebacks."""
        return "Pseudonyms(key=...)"

    def of(self, user_id: str) -> str:
        """Return the pseudonym of one id, 32 hex digits."""
        return hmac.new(self.key, user_id.encode(), hashlib.sha256).hexdigest()[:_LENGTH]

    def expression(self, ids: pl.Expr) -> pl.Expr:
        """Replace a string column; each distinct id of a batch is hashed once, null stays null.

        Ids that are marked as pseudonyms only lose the mark.
        """
        return ids.map_batches(self._series, return_dtype=pl.String, is_elementwise=True)

    def _series(self, ids: pl.Series) -> pl.Series:
        distinct = ids.drop_nulls().unique()
        hashed = pl.Series([self._read(i) for i in distinct.to_list()], dtype=pl.String)
        return ids.replace_strict(distinct, hashed, default=None, return_dtype=pl.String)

    def _read(self, user_id: str) -> str:
        """Return the pseudonym of an id in a table; requests may not contain pseudonyms."""
        marked = user_id.removeprefix(PSEUDONYM)
        return marked if _IS_PSEUDONYM.fullmatch(marked) and marked != user_id else self.of(user_id)


def make_pseudonyms(config: PrivacyConfig) -> Pseudonyms | None:
    """Return the configured pseudonyms, or None.

    Raises:
        InputError: hashing is on and the environment has no key.
    """
    if not config.hash_users:
        return None
    key = os.environ.get(config.key_env, "")
    if not key:
        raise InputError(
            f"privacy.hash_users=true needs a secret key in the environment variable {config.key_env}; "
            f"make one with `export {config.key_env}=$(openssl rand -hex 32)` and keep it"
        )
    return Pseudonyms(key.encode())
