"""What an error of Milvus means.

Nothing was answered, a collection is not there or is in use, an expression was refused, or an item holds what
Milvus does not take.
"""

from __future__ import annotations

from typing import Final

_UNFIT_CODES: Final = frozenset({6, 1100, 1101})
"""Codes for arguments that Milvus does not take: of Milvus Lite, and of Milvus (`ErrParameterInvalid`)."""
_MISSING_CODES: Final = frozenset({100, 1600})
"""Codes for what is not there: of Milvus for a collection (`ErrCollectionNotFound`) and an alias
(`ErrAliasNotFound`), of Milvus Lite the first for both."""
_ALIASES_WORDS: Final = "associated aliases"
"""What Milvus says of a collection that it does not drop because of its aliases; it has no code for it."""
_PARSE_WORDS: Final = ("failed to create query plan", "cannot parse expression")
"""What releases of Milvus say of an expression for which they have no code."""
_NO_TOKEN: Final = 1400
"""Milvus's code for a call without authentication (`ErrNeedAuthenticate`)."""
_NO_TOKEN_WORDS: Final = ("auth check failure", "missing authorization in header")
"""What Milvus says of a token that it refuses, in releases that have no status for it."""


def token_refused(error: BaseException) -> bool:
    """Return whether Milvus refuses the token; the address, which messages have, says nothing of it."""
    import grpc

    for one in (error, error.__cause__):
        code = getattr(one, "code", None)
        code = code() if callable(code) else code
        details = getattr(one, "details", None)
        said = str(details() if callable(details) else getattr(one, "message", ""))
        if code in (grpc.StatusCode.UNAUTHENTICATED, _NO_TOKEN) or any(w in said for w in _NO_TOKEN_WORDS):
            return True
    return False


def refused(error: BaseException) -> bool:
    """Return whether Milvus does not take a search as it is.

    It may fail one for other reasons, such as its rate limit or the move of a shard, which say nothing of it.
    """
    import pymilvus

    if not isinstance(error, pymilvus.MilvusException) or error.retriable:
        return False
    said = str(error.message)
    return error.is_input_error or error.code in _UNFIT_CODES or any(word in said for word in _PARSE_WORDS)


def missing(error: BaseException | None) -> bool:
    """Return whether Milvus answers that there is no such collection or alias."""
    import pymilvus

    return isinstance(error, pymilvus.MilvusException) and error.code in _MISSING_CODES


def has_aliases(error: BaseException | None) -> bool:
    """Return whether Milvus does not drop a collection because it has aliases."""
    import pymilvus

    return isinstance(error, pymilvus.MilvusException) and _ALIASES_WORDS in str(error.message)


def timed_out(error: BaseException | None) -> bool:
    """Return whether a search was not answered in time, rather than not at all or with an error."""
    import grpc

    causes = (error, getattr(error, "__cause__", None))
    return (
        any(isinstance(one, grpc.FutureTimeoutError) for one in causes) or "DEADLINE" in repr(error).upper()
    )


def unfit(error: BaseException) -> bool:
    """Return whether Milvus, or its client, refuses what an item holds: it would refuse it again."""
    import pymilvus
    from pymilvus.exceptions import DataNotMatchException, ParamError

    if isinstance(error, (DataNotMatchException, ParamError)):
        return True
    return isinstance(error, pymilvus.MilvusException) and error.code in _UNFIT_CODES
