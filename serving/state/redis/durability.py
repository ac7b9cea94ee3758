"""Durability of a Redis: whether it may lose acknowledged writes."""

from __future__ import annotations

from redis.exceptions import RedisError

from serving.state.redis.store import RedisStore


async def durability_warning(store: RedisStore) -> str | None:
    """Return a warning about loss of acknowledged events, with its remedy; None if safe or unknown."""
    try:
        found = await store.client.config_get("append*") | await store.client.config_get("maxmemory*")
    except RedisError:  # many hosted ones forbid CONFIG
        return None
    faults = []
    if found.get("appendonly") == "no":
        faults.append(
            "it keeps no log on disk (appendonly no), so acknowledged events are lost when it stops"
        )
    elif found.get("appendfsync") != "always":
        faults.append(
            f"it does not force every write to disk (appendfsync {found.get('appendfsync')}), so a power cut "
            "loses the last second of acknowledged events"
        )
    if found.get("maxmemory") not in (None, "0") and found.get("maxmemory-policy") != "noeviction":
        faults.append(
            f"it throws data away when memory is short (maxmemory-policy {found.get('maxmemory-policy')})"
        )
    if not faults:
        return None
    safe = "appendonly yes, appendfsync always, maxmemory-policy noeviction"
    return f"warning: {store.name}: {'; '.join(faults)}; safe are {safe}"
