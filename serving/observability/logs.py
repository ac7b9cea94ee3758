"""Structured logs: one JSON object per line, or text with the same fields.

Fields are passed by `extra=` under the same names everywhere: request_id, method, code, duration_ms,
degradation, model_version, user (the beginning of a hash), and others. User ids, keys and texts of users are
never logged.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

from conf.serving import LogFormat
from serving.observability.json_stderr import capture_stderr

_OF_EVERY_RECORD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields that a record got by `extra=`."""
    return {name: value for name, value in record.__dict__.items() if name not in _OF_EVERY_RECORD}


class TextFormatter(logging.Formatter):
    """Time, level, logger and message, then the fields."""

    def __init__(self) -> None:
        """Use the layout of `_TEXT`."""
        super().__init__(_TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line."""
        fields = [f"{name}={value}" for name, value in fields_of(record).items()]
        return " ".join([super().formatMessage(record), *fields])


class JsonFormatter(logging.Formatter):
    """A JSON object per line; a traceback is one of its strings."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def start_logging(log_format: LogFormat, requests: bool) -> None:
    """Configure the logging of a process that is not a child of another one of the server; see below.

    With JSON everything else that is written to standard error becomes JSON lines, too, also by its children.
    """
    if log_format is LogFormat.json:
        capture_stderr()
    configure_logging(log_format, requests)


def configure_logging(log_format: LogFormat, requests: bool) -> None:
    """Log to standard error from now on.

    Args:
        log_format: JSON or text.
        requests: whether every request is logged; else warnings and errors only.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.json else TextFormatter())
    logging.basicConfig(level=logging.INFO if requests else logging.WARNING, handlers=[handler])
