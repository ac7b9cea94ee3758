"""Who may read a file: personal data only its owner, published files whoever the umask lets.

Files with user ids (events, histories, the state, exports, backups) have mode 600 from their creation, before
any content is in them. A bundle names no user, and another account, such as a server's, may have to read it.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Final

_LOG = logging.getLogger(__name__)
PRIVATE: Final = 0o600
"""Mode of a file with personal data."""
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_MASKED: Final = 0o666
_MASKED_FOLDER: Final = 0o777


def create_private(path: Path) -> None:
    """Make an empty file that only its owner can use, or empty an existing one and make it so.

    Libraries that open a path for writing keep the mode of a file that is there.

    Raises:
        OSError: it cannot be created, or belongs to another user.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
    try:
        os.fchmod(descriptor, PRIVATE)
    finally:
        os.close(descriptor)


def private_opener(path: str, flags: int) -> int:
    """Open a file as the function `open` does with `opener`; a new one only its owner can use."""
    return os.open(path, flags, PRIVATE)


def make_private(path: Path) -> bool:
    """Take a file from everybody but its owner; return whether others could use it, False for a missing one.

    Raises:
        OSError: the mode cannot be changed.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if not mode & _OTHERS:
        return False
    path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
    return True


def mend(path: Path) -> None:
    """Make a file private that an earlier release left readable for others, and log that."""
    try:
        if make_private(path):
            _LOG.warning("%s: other users of this machine could read it; only its owner can now", path)
    except OSError as error:
        _LOG.warning("%s: other users of this machine can read it (%s); chmod 600 it", path, error.strerror)


def make_public(folder: Path) -> None:
    """Give a folder and everything in it the modes of newly created files, as the umask has them.

    safetensors writes files of mode 600, temporary folders have mode 700.
    """
    mask = umask()
    for path in (folder, *folder.rglob("*")):
        path.chmod((_MASKED_FOLDER if path.is_dir() else _MASKED) & ~mask)


def umask() -> int:
    """Return the umask of the process, without changing it where Linux tells it."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("\nUmask:")[2].split()[0], 8)
    except (OSError, ValueError, IndexError):
        mask = os.umask(0o077)
        os.umask(mask)
        return mask
