"""A shop with arms of experiments: a server whose models are fakes, and its file of experiments."""

from __future__ import annotations

from typing import Any

from conf.errors import InputError
from serving.experiments.assignment import arm_at, arm_ranges, position
from serving.model.interfaces import LiveModel
from shelfwise_client import RecommendQuery
from tests.serving.conftest import Servers
from tests.serving.fake_bundle import FakeBundle
from tests.serving.model.test_reload import FAST, V1, V2, point

USERS = [f"u{n}" for n in range(40)]
HALVES = "ranking: {{arms: {{control: {{share: 0.5}}, new: {{share: 0.5, {new}}}}}}}"
MODELS = HALVES.format(new=f"version: {V1}")
LISTS = HALVES.format(new="lists: {diversity: 0.25}")


def arm_of(unit: str, salt: str = "ranking") -> str:
    """The arm of a unit in an experiment with two halves."""
    return ["control", "new"][arm_at(arm_ranges([0.5, 0.5]), position(salt, unit)) or 0]


CONTROL = next(user for user in USERS if arm_of(user) == "control")
NEW = next(user for user in USERS if arm_of(user) == "new")


class Shop:
    """A server whose models are fakes, its file of experiments, and the models that it has loaded."""

    def __init__(self, servers: Servers, text: str, **settings: Any) -> None:
        self.servers = servers
        self.file = servers.store / "experiments.yaml"
        self.file.write_text(text)
        self.loaded: dict[str, FakeBundle] = {}
        self.broken: dict[str, str] = {}
        self.loads: list[str] = []
        for version in (V1, V2):
            point(servers.store, version)
            manifest = servers.store / "versions" / version / "manifest.json"
            manifest.write_text("{}")
        self.current = FakeBundle(V2)
        self.server = servers.start(
            self.current,
            load=self.load,
            experiments=str(self.file),
            reload_seconds=FAST,
            **{"event_poll_seconds": FAST, **settings},
        )
        self.client = servers.client(self.server)

    def load(self, version: str, background: bool) -> LiveModel:
        self.loads.append(version)
        if version in self.broken:
            raise InputError(f"{self.servers.store}/{self.broken[version]}")
        self.loaded[version] = FakeBundle(version)
        return self.loaded[version]

    def write(self, text: str) -> None:
        """Replace the file as an editor does."""
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.replace(self.file)

    def arm(self, user: str, **fields: Any) -> tuple[str, str]:
        """Return the arm of a user's list, and the version that made it."""
        page = self.client.recommend(RecommendQuery(user_id=user, **fields))
        return ";".join(f"{e.experiment}={e.arm}" for e in page.experiments), page.model_version

    def metric(self, name: str, **labels: str) -> float | None:
        return self.server.running.metrics.registry.get_sample_value(f"shelfwise_{name}", labels)
