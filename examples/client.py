"""A storefront's calls to a running server: a list, a click, the next list, a search.

shelfwise serve artifacts=work/own/artifacts
python examples/client.py 127.0.0.1:50051
"""

from __future__ import annotations

import sys

from shelfwise_client import Client, Event, RecommendQuery, SearchQuery, SessionEvent

VISITOR = "visitor-1"


def main() -> None:
    """Request a visitor's list before and after a click, and search for the clicked item."""
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/client.py HOST:PORT")
    with Client(sys.argv[1]) as client:
        before = client.recommend(RecommendQuery(user_id=VISITOR, page_size=5))
        print(f"a new visitor (answered from: {before.degradation})")
        for item in before.items:
            print(f"  {item.item_id:<6} {item.title}")
        clicked = before.items[-1]
        event = Event(VISITOR, clicked.item_id, "view", attribution_token=before.attribution_token)
        recorded = client.record_events([event])
        print(f"a click on {clicked.title!r}: {recorded.new_count} event stored")
        after = client.recommend(
            RecommendQuery(
                user_id=VISITOR, session=(SessionEvent(clicked.item_id),), page_size=5, explain=True
            )
        )
        print(f"the next list (answered from: {after.degradation})")
        for item in after.items:
            print(f"  {item.item_id:<6} {item.title:<24} {', '.join(r.text for r in item.reasons)}")
        found = client.search_items(SearchQuery(clicked.title, page_size=3))
        print(f"a search for {clicked.title!r}: {', '.join(item.title for item in found.items)}")


if __name__ == "__main__":
    main()
