"""Defaults by surface: their use, overrides, and invalid files."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from conf.errors import InputError
from ranking.types import Request
from serving.api.surfaces import read_surfaces
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import Harness, Servers, until
from tests.serving.fake_bundle import FakeBundle
from tests.serving.model.test_reload import FAST, V1, V2, point

HOME = """
home:
  diversity: 0.25
  novelty: 0.125
  exclude_seen: false
  rules:
    caps: [{attribute: category, max_items: 2}]
    pins: [{item_id: i7, position: 1}]
    boosts: [{filter: 'tags:"sale"', strength: 0.5}]
cart: {rules: {exploration: {share: 0.5}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "surfaces.yaml"
    path.write_text(HOME)
    return path


@pytest.fixture
def server(servers: Servers, file: Path) -> Harness:
    return servers.start(surfaces=str(file))


def asked(server: Harness, request: pb.RecommendRequest) -> Request:
    """Send a request; return the model request that it became."""
    server.stub.Recommend(request, timeout=10)
    return server.model.recommender.seen[-1]


def home(**fields: object) -> pb.RecommendRequest:
    return pb.RecommendRequest(surface="home", **fields)  # type: ignore[arg-type]


def test_a_surface_has_its_own_defaults_and_others_none(server: Harness) -> None:
    question = asked(server, home())
    assert (question.diversity, question.novelty, question.exclude_seen) == (0.25, 0.125, False)
    assert question.rules is not None
    assert [(pin.row, pin.position) for pin in question.rules.pins] == [(7, 1)]
    assert [cap.limit for cap in question.rules.caps] == [2]
    assert [(boost.matches.sum(), boost.strength) for boost in question.rules.boosts] == [(5, 0.5)]
    assert question.rules.exploration == 0.0
    cart = asked(server, pb.RecommendRequest(surface="cart"))
    assert cart.rules is not None
    assert cart.rules.exploration == 0.5
    assert cart.rules.caps == ()
    assert (cart.diversity, cart.novelty, cart.exclude_seen) == (0.0, None, True)  # the model's own
    for other in ("", "product"):
        assert asked(server, pb.RecommendRequest(surface=other)).rules is None


def test_what_a_request_says_wins_field_by_field(server: Harness) -> None:
    question = asked(server, home(diversity=0.0))
    assert asked(server, home(novelty=0.0)).novelty == 0.0
    assert question.diversity == 0.0
    assert question.novelty == 0.125
    assert question.exclude_seen is False
    assert question.rules is not None
    assert asked(server, home(exclude_seen=True)).exclude_seen is True
    assert asked(server, home(rules=pb.ListRules())).rules is None  # set, though empty
    own = asked(server, home(rules=pb.ListRules(exploration=pb.Exploration(share=0.1)))).rules
    assert own is not None
    assert own.exploration == pytest.approx(0.1)
    assert not own.pins
    assert not own.caps


def test_campaigns_have_them_and_status_tells_them(server: Harness) -> None:
    request = pb.BatchRecommendRequest(user_list=pb.UserList(user_ids=["u"]), surface="home")
    assert [answer.user_id for answer in server.stub.BatchRecommend(request, timeout=10)] == ["u"]
    rules = server.model.recommender.seen[-1].rules
    assert rules is not None
    assert len(rules.pins) == 1
    told = server.stub.GetStatus(pb.GetStatusRequest(), timeout=10).surfaces
    assert set(told) == {"home", "cart"}
    assert told["home"].rules.pins[0].item_id == "i7"
    assert told["home"].diversity == 0.25


def test_pages_go_on_under_the_defaults_that_hold_then(server: Harness, file: Path) -> None:
    first = server.stub.Recommend(home(page_size=3), timeout=10)
    replace(file, HOME.replace("i7", "i9"))
    until(lambda: server.running.service._surfaces.of("home").rules.pins[0].item_id == "i9")
    second = server.stub.Recommend(home(page_size=3, page_token=first.next_page_token), timeout=10)
    assert {i.item_id for i in first.items}.isdisjoint(i.item_id for i in second.items)


def replace(file: Path, content: str) -> None:
    """Write a file as editors do: by replacing it."""
    written = file.with_suffix(".new")
    written.write_text(content)
    os.replace(written, file)


def test_a_changed_file_is_taken_over_and_a_wrong_one_is_not(
    server: Harness, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    surfaces = server.running.service._surfaces
    replace(file, "home: {diversity: 2}")
    until(lambda: "the surfaces' former defaults stay in use" in caplog.text)
    assert "home: diversity: 2 is not between 0 and 1" in caplog.text
    assert asked(server, home()).diversity == 0.25
    file.unlink()
    replace(file, "mail: {diversity: 0.75}")
    until(lambda: set(surfaces.defaults) == {"mail"})
    assert asked(server, pb.RecommendRequest(surface="mail")).diversity == 0.75
    assert asked(server, home()).rules is None


def test_a_model_that_does_not_fit_to_the_defaults_is_not_taken_over(servers: Servers, file: Path) -> None:
    poor = FakeBundle(V2)
    base = poor.catalogue.base
    base.frame = base.frame.drop("category")
    point(servers.store, V1)
    server = servers.start(
        FakeBundle(V1), load=lambda version, background: poor, reload_seconds=FAST, surfaces=str(file)
    )
    point(servers.store, V2)

    def failed() -> str:
        status = server.stub.GetStatus(pb.GetStatusRequest(), timeout=10)
        return str(status.failed_reload.reason)

    until(lambda: failed() != "")
    assert failed().startswith("surfaces.yaml: home: rules.caps[0].attribute: unknown attribute 'category'")
    assert server.stub.GetStatus(pb.GetStatusRequest(), timeout=10).model_version == V1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            "home: {rules: {caps: [{attribute: colour, max_items: 2}]}}",
            "home: rules.caps[0].attribute: unknown",
        ),
        ("home: {rules: {caps: [{attribute: category}]}}", "home: rules.caps[0].max_items: 0 is not between"),
        ("home: {rules: {boosts: [{filter: 'price <', strength: 1}]}}", "home: rules.boosts[0].filter: "),
        ("home: {rules: {boosts: [{filter: 'prize < 1', strength: 1}]}}", "did you mean 'price'"),
        ("home: {diversity: -0.5}", "home: diversity: -0.5 is not between 0 and 1"),
        ("home: {novelty: 3}", "home: novelty: 3 is not between 0 and 1"),
        ("home: {diversty: 0.5}", 'home: Message type "SurfaceDefaults" has no field named "diversty"'),
        ("home: {diversity: lots}", "home: "),
        ("home: 5", "home: is not a mapping of fields"),
        ("Home Page: {}", "'Home Page': surface: use 1 to 64 characters of a-z 0-9 _ -"),
        ("7: {}", "'7' is no surface"),
        ("[home]", "write one entry per surface"),
        ("", "write one entry per surface"),
        ("home: {", "neither YAML nor JSON"),
    ],
)
def test_a_file_that_is_wrong_at_a_start_is_one_readable_line(
    servers: Servers, file: Path, content: str, says: str
) -> None:
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        servers.start(surfaces=str(file), console=Console(file=io.StringIO()))
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert says in message
    assert "\n" not in message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lost\.yaml: cannot be read \(No such file"):
        read_surfaces(tmp_path / "lost.yaml")


def test_json_is_read_too(file: Path) -> None:
    file.write_text('{"home": {"excludeSeen": true, "rules": {"pins": [{"item_id": "i1", "position": 2}]}}}')
    found = read_surfaces(file)["home"]
    assert found.exclude_seen is True
    assert found.rules.pins[0].position == 2


def test_the_documented_file_is_one(file: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    file.write_text(page.split("```yaml\n# surfaces.yaml")[1].split("```")[0])
    assert set(read_surfaces(file)) == {"home", "product", "cart"}
