"""`shelfwise recommend`: a list from a running server, as a table."""

from __future__ import annotations

import grpc
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conf.clients import RecommendConfig
from conf.errors import InputError
from serving.cli.connection import connect, failure_message, parse_time
from shelfwise_client import RecommendQuery, RecommendResult, ServiceError, SessionEvent

_DEGRADATIONS = {
    "none": "personalised with the user's history",
    "session_only": "no stored history: personalised with the session only",
    "text_only": "no history: answered from the words",
    "popularity": "nothing known about this user: popular items",
    "history_unavailable": "the stored history could not be read",
    "candidates_unavailable": "vectors could not be searched: neighbours and popular items only",
}


def recommend(config: RecommendConfig, console: Console) -> None:
    """Print a table of recommended items.

    Raises:
        InputError: no server at the address, or a refused request.
    """
    query = RecommendQuery(
        user_id=config.user or "",
        session=tuple(SessionEvent(item) for item in config.items),
        intent=config.intent,
        page_size=config.k,
        filter=config.filter,
        surface=config.surface,
        explain=config.explain,
        request_time=parse_time(config.request_time),
    )
    try:
        with connect(config, config.timeout) as client:
            result = client.recommend(query)
    except ServiceError as error:
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise InputError(
                f"{config.address} did not answer within {config.timeout:g} s; set timeout=SECONDS"
            ) from error
        raise InputError(failure_message(error, config)) from error
    _show(result, config, console)


def _show(result: RecommendResult, config: RecommendConfig, console: Console) -> None:
    table = Table(title=escape(f"for {config.user}") if config.user else None, title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("item")
    table.add_column("title", overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("source")
    if config.explain:
        table.add_column("reason", overflow="fold")
    for rank, item in enumerate(result.items, start=1):
        cells = [str(rank), item.item_id, item.title, f"{item.score:.4f}", item.source]
        if config.explain:
            cells.append("; ".join(reason.text for reason in item.reasons))
        table.add_row(*(escape(cell) for cell in cells))
    if result.items:
        console.print(table)
    else:
        console.print("no item qualifies; loosen the filter", highlight=False)
    if result.unknown_item_ids:
        console.print(f"not in the catalogue, ignored: {', '.join(result.unknown_item_ids)}", markup=False)
    console.print(
        f"{_DEGRADATIONS.get(result.degradation, result.degradation)} (degradation {result.degradation}); "
        f"model {result.model_version}; request {result.request_id}",
        highlight=False,
        markup=False,
    )
