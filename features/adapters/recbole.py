"""RecBole's atomic files: tab-separated tables whose header gives each column a type, as in `item_id:token`.

https://recbole.io/docs/user_guide/data/atomic_files.html
"""

from __future__ import annotations

from dataclasses import replace

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.readers import RawTable, scan_table
from features.ingest.columns import map_columns
from features.ingest.raw_tables import Sources, first_present

_TYPES = ("token", "token_seq", "float", "float_seq")
_USERS = ("session_id",)
"""Session data sets have no users: a session is taken as one."""
_VALUES = ("rating",)


def _without_types(table: RawTable) -> RawTable:
    """Rename `title:token_seq` to `title`; a sequence stays one text, separated by spaces.

    Raises:
        InputError: a header without types.
    """
    names = {}
    for column in table.columns:
        name, _, kind = column.rpartition(":")
        if not name or kind not in _TYPES:
            raise InputError(
                f"{table.name}: column '{column}' has no type; RecBole's atomic files write name:type, "
                f"with a type of {', '.join(_TYPES)}. Tables of your own are read by data=files"
            )
        names[column] = name
    return replace(table, frame=table.frame.rename(names))


def read_recbole(config: DataConfig) -> Sources:
    """Read `.item` and `.inter` (or their parts); `rating` is kept as `value`, `data.columns` is applied.

    Raises:
        InputError: missing files, or columns without a type.
    """
    if config.items is None or config.events is None:
        raise InputError("data.adapter=recbole: set data.items (the .item file) and data.events (.inter)")
    items = _without_types(scan_table(config.items, "data.items"))
    events = _without_types(scan_table(config.events, "data.events"))
    events = first_present(first_present(events, schema.USER_ID, _USERS), "value", _VALUES)
    mapped_items, mapped_events = map_columns(items, events, config.columns)
    assert mapped_items is not None
    return Sources(mapped_items, mapped_events)
