"""Pseudonyms for user ids: a keyed hash that nobody without the key can connect to a person."""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass

import polars as pl

from conf.errors import InputError
from conf.schema import PrivacyConfig

_LENGTH = 32
"""Hex digits kept: 128 bits, far beyond accidental collisions."""


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
        """Replace a string column; each distinct id of a batch is hashed once, null stays null."""
        return ids.map_batches(self._series, return_dtype=pl.String, is_elementwise=True)

    def _series(self, ids: pl.Series) -> pl.Series:
        distinct = ids.drop_nulls().unique()
        hashed = pl.Series([self.of(i) for i in distinct.to_list()], dtype=pl.String)
        return ids.replace_strict(distinct, hashed, default=None, return_dtype=pl.String)


def make_pseudonyms(config: PrivacyConfig) -> Pseudonyms | None:
    """Return the replacer that the configuration asks for, or None.

    Raises:
        InputError: hashing is on and the environment holds no key.
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
