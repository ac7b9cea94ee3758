"""`shelfwise demo`: serves a finished run and shows, scene by scene, lists for real users."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from conf.errors import InputError
from conf.serving import DemoConfig, Scene
from serving.cli.story.erasure import show_erasure
from serving.cli.story.measured import show_measured
from serving.cli.story.product import show_product
from serving.cli.story.screens import Screen, wide_enough
from serving.cli.story.search import show_search
from serving.cli.story.server import copied_store, running_server
from serving.cli.story.shop import Shop, read_metrics, read_shop, read_training
from serving.cli.story.shoppers import Chosen, check_named, choose_shoppers, show_shoppers, show_visitor
from serving.cli.story.without_text import show_without_text
from shelfwise_client import Client, ServiceError

_HEADINGS = {
    Scene.measured: "what was trained, and how good it is",
    Scene.shoppers: "shoppers: what they bought, and what they are shown",
    Scene.visitor: "a visitor whom nobody knows clicks twice",
    Scene.product: "a product that did not exist a moment ago",
    Scene.search: "a search in words of one's own",
    Scene.text: "what the text is worth",
    Scene.erasure: "a shopper is erased",
}


def _scenes(
    client: Client, store: Path, shop: Shop, chosen: Chosen, config: DemoConfig, screen: Screen
) -> dict[Scene, Callable[[], None]]:
    """Return the configured scenes of a run, in order, without those that need a missing evaluation."""
    work, k, users = Path(config.work_dir), config.k, chosen.users
    scenes: dict[Scene, Callable[[], None]] = {
        Scene.shoppers: lambda: show_shoppers(client, chosen, shop, screen),
        Scene.visitor: lambda: show_visitor(client, shop, k, screen),
        Scene.product: lambda: show_product(client, config, shop, screen),
        Scene.search: lambda: show_search(client, shop, config.query, users, screen),
        Scene.erasure: lambda: show_erasure(client, shop, store, users[-1], k, screen),
    }
    metrics = read_metrics(work)
    if metrics is not None:
        scenes[Scene.measured] = lambda: show_measured(metrics, read_training(work), screen)
        added = config.product_id if Scene.product in config.scenes else ""
        scenes[Scene.text] = lambda: show_without_text(
            client, shop, work, users[0], k, metrics, added, screen
        )
    return {scene: scenes[scene] for scene in Scene if scene in config.scenes and scene in scenes}


def _what_next(config: DemoConfig, shop: Shop, user: str, console: Console) -> None:
    work = Path(config.work_dir)
    console.print("\nWhat next:", style="bold")
    for what, command in (
        ("read the evaluation", f"open {work / 'evaluation' / 'report.html'}"),
        ("serve it", f"shelfwise serve artifacts={work / 'artifacts'}"),
        ("ask it", f"shelfwise recommend user={user} request_time={shop.now:%Y-%m-%dT%H:%M:%S}"),
        ("your own data", "shelfwise run data.items=items.csv data.events=events.csv work_dir=work/shop"),
        ("what goes in", "docs/data.md"),
        ("every call", "docs/serving.md"),
    ):
        console.print(f"  {what:<22}{command}", markup=False, highlight=False, soft_wrap=True)


def demo(config: DemoConfig, console: Console) -> None:
    """Serve a copy of a finished run, show the scenes, and stop the server; the run is not modified.

    Raises:
        InputError: no published bundle, no histories, a server that does not start, or a failed call.
    """
    console = wide_enough(console)
    screen = Screen(console)
    artifacts = Path(config.work_dir) / "artifacts"
    shop = read_shop(artifacts)
    check_named(shop, config.users)
    with (
        copied_store(artifacts) as store,
        running_server(store, console) as address,
        Client(address, timeout=30.0) as client,
    ):
        try:
            chosen = choose_shoppers(client, shop, config)
            scenes = _scenes(client, store, shop, chosen, config, screen)
            for number, (scene, show) in enumerate(scenes.items(), start=1):
                screen.heading(number, len(scenes), _HEADINGS[scene])
                show()
            screen.console.print()
        except ServiceError as error:
            raise InputError(f"the server refused a call of the demonstration: {error}") from error
    _what_next(config, shop, chosen.users[0], console)
