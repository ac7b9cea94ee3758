"""The views, in the order of the navigation: a new one is an entry here and a module in `explorer/views/`."""

from __future__ import annotations

from explorer.view import Needs, View

VIEWS: tuple[View, ...] = (
    View(
        "start", "Start", "/", "What the bundle is, and how good it was measured to be.", Needs.nothing,
    ),
    View(
        "shopper", "Shopper", "/shopper",
        "Find a shopper, and see the history beside the list, with scores, sources and reasons.",
        Needs.either, example="?like=loyal&seed=1",
    ),
    View(
        "why", "Why", "/why",
        "Ask why an item is in a shopper's list, why another is not, and what would change that.",
        example="?example=1",
    ),
    View(
        "catalogue", "Catalogue", "/catalogue",
        "Look at a map of all items by meaning, at any item, at near duplicates, and at what was rejected.",
        example="?colour=sales",
    ),
    View(
        "rules", "Rules", "/rules",
        "Try caps, pins, boosts, exploration, novelty and diversity: lists before and after, and the cost.",
        example="?diversity=0.4&exploration=0.1",
    ),
    View(
        "storefront", "Storefront", "/storefront",
        "Be a shopper: look at a shelf, click, add to the cart, buy, search, and see the list change.",
        Needs.nothing, posts=True, example="?visit=00000001&did=click%3A22910&did=cart%3A22910",
    ),
    View(
        "new_product", "New product", "/new-product",
        "Type the text of a product that does not exist: who would get it, and what each word contributes.",
        example="?a.title=Lunch+bag+sleepy+hedgehogs&a.price=1.65",
    ),
    View(
        "evaluation", "Evaluation", "/evaluation",
        "Compare any two systems in any part of the data; see where choices are lost and whom lists fail.",
        Needs.nothing, example="?slice=tail_items",
    ),
    View(
        "two_models", "Two models", "/two-models",
        "Two versions on the same shoppers: metrics with tests, whose lists change, one shopper in both.",
    ),
)  # fmt: skip
