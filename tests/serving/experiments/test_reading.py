"""The file of experiments: what it says, and one line for everything that is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conf.errors import InputError
from features.ingest.privacy import Pseudonyms
from serving.experiments.definitions import Experiment
from serving.experiments.reading import read_experiments
from serving.experiments.versions import pinned_versions, resolve_version

V1, V2, V3 = (f"2024010{n}T000000Z-{n:012x}" for n in (1, 2, 3))
FULL = f"""
ranking:
  unit: user
  salt: ranking-2
  surfaces: [home, cart]
  exclude_users: [staff-1, 'pseudonym:0123456789abcdef0123456789abcdef']
  start: 2024-06-01
  end: '2024-07-01T00:00:00+02:00'
  arms:
    control: {{share: 0.5, version: previous}}
    new: {{share: 0.25, version: {V2}, lists: {{diversity: 0.5, rules: {{}}}}}}
layout:
  unit: session
  layer: page
  slice: [0, 0.5]
  enabled: false
  arms: {{wide: {{share: 1}}}}
"""


def read(tmp_path: Path, text: str) -> tuple[Experiment, ...]:
    path = tmp_path / "experiments.yaml"
    path.write_text(text)
    return read_experiments(path)


def test_a_merge_key_shares_fields_which_the_mapping_may_replace(tmp_path: Path) -> None:
    text = f"e: {{arms: {{a: &half {{share: 0.5, version: {V1}}}, b: {{<<: *half, version: {V2}}}}}}}"
    [experiment] = read(tmp_path, text)
    assert [(arm.share, arm.version) for arm in experiment.arms] == [(0.5, V1), (0.5, V2)]


def test_every_field(tmp_path: Path) -> None:
    ranking, layout = read(tmp_path, FULL)
    assert (ranking.name, ranking.salt, ranking.unit) == ("ranking", "ranking-2", "user")
    assert ranking.surfaces == {"home", "cart"}
    assert ranking.excluded == {"staff-1", "0123456789abcdef0123456789abcdef"}
    assert (ranking.start, ranking.end) == (1_717_200_000, 1_719_784_800)
    control, new = ranking.arms
    assert (control.name, control.share, control.version) == ("control", 0.5, "previous")
    assert (new.version, new.lists.diversity, new.lists.HasField("rules")) == (V2, 0.5, True)
    assert ranking.fields == {"version", "diversity", "rules"}
    assert [ranking.runs(now) for now in (1_717_199_999, 1_717_200_000, 1_719_784_800)] == [
        False,
        True,
        False,
    ]
    assert [ranking.prepared(now) for now in (0, 1_719_784_800)] == [True, False]
    assert (layout.unit, layout.layer, layout.slice, layout.enabled) == ("session", "page", (0, 0.5), False)
    assert (layout.salt, layout.sets_model, layout.prepared(0)) == ("layout", False, False)


def test_json_and_an_empty_file_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, json.dumps({"a": {"arms": {"x": {"share": 1}}}}))[0].arms[0].name == "x"
    assert read(tmp_path, "# none now\n") == ()


def test_excluded_users_may_have_a_file_of_their_own(tmp_path: Path) -> None:
    pseudonyms = Pseudonyms(b"key")
    (tmp_path / "staff.txt").write_text("\ufeffanna\n\nben\n")  # as Windows programs begin text files
    path = tmp_path / "experiments.yaml"
    path.write_text("a: {exclude_users: staff.txt, arms: {x: {share: 1}}}")
    (experiment,) = read_experiments(path, pseudonyms.of)
    assert experiment.excluded == {pseudonyms.of("anna"), pseudonyms.of("ben")}
    assert experiment.excluded_file == tmp_path / "staff.txt"


ONE = "arms: {x: {share: 1}}"
BAD = [
    ("[]", "write one entry per experiment"),
    ("a: [", "neither YAML nor JSON"),
    ("&a [*a]", "write one entry per experiment"),
    ("a: &a {arms: *a}", "a.arms.arms: no field 'arms'"),
    (f"a: {{{ONE}}}\na: {{{ONE}}}", "'a' is there twice, the second time in line 2"),
    (f"a: {{{ONE}, {ONE}}}", "'arms' is there twice"),
    (
        f"on: {{{ONE}}}",
        "'True' is no name of an experiment; use 1 to 32 characters of a-z 0-9 _ -, in quotes",
    ),
    (f"A: {{{ONE}}}", "'A' is no name of an experiment"),
    ("a: 1", "a: is not a mapping of arms, enabled,"),
    (f"a: {{surface: [home], {ONE}}}", "a: no field 'surface'; did you mean 'surfaces'?; fields: arms,"),
    (f"a: {{unit: visitor, {ONE}}}", "a.unit: 'visitor'; write user or session"),
    (f"a: {{salt: 'x:y', {ONE}}}", "a.salt: 'x:y'; use 1 to 64 characters"),
    (f"a: {{salt: 7, {ONE}}}", "a.salt: '7'; use"),
    (f"a: {{start: yesterday, {ONE}}}", "a.start: 'yesterday' is no time; write for example 2024-05-31T12"),
    (f"a: {{start: 2024-06-02, end: 2024-06-01, {ONE}}}", "a.end: is not after start"),
    (f"a: {{enabled: 'no', {ONE}}}", "a.enabled: 'no'; write true or false"),
    (f"a: {{surfaces: home, {ONE}}}", "a.surfaces: write a list of names"),
    (f"a: {{exclude_users: [7], {ONE}}}", "a.exclude_users: '7' is no user id; write ids in quotes"),
    (f"a: {{exclude_users: none.txt, {ONE}}}", "none.txt cannot be read (No such file or directory)"),
    (f"a: {{exclude_users: 7, {ONE}}}", "a.exclude_users: write a list of user ids, or the name of a file"),
    (f"a: {{layer: l, {ONE}}}", "a.slice: layer and slice need each other"),
    (f"a: {{slice: [0, 1], {ONE}}}", "a.slice: layer and slice need each other"),
    (f"a: {{layer: l, slice: [0.5, 0.2], {ONE}}}", "a.slice: 0.5 is not below 0.2"),
    (f"a: {{layer: l, slice: [0, 2], {ONE}}}", "a.slice: '2' is not a number from 0 to 1"),
    (f"a: {{layer: l, slice: 0.5, {ONE}}}", "a.slice: write two numbers"),
    ("a: {}", "a.arms: write a mapping of arms"),
    ("a: {arms: {}}", "a.arms: write a mapping of arms"),
    ("a: {arms: {x: {}}}", "a.arms.x.share: is missing"),
    ("a: {arms: {x: 0.5}}", "a.arms.x: is not a mapping of lists, share, version"),
    ("a: {arms: {x: {share: 50%}}}", "a.arms.x.share: '50%' is not a number from 0 to 1"),
    ("a: {arms: {x: {share: .nan}}}", "a.arms.x.share: 'nan' is not a number from 0 to 1"),
    ("a: {arms: {x: {share: true}}}", "a.arms.x.share: 'True' is not a number"),
    ("a: {arms: {x: {share: 0.6}, y: {share: 0.6}}}", "a.arms: the shares sum to 1.2; at most 1"),
    ("a: {arms: {no: {share: 0.6}}}", "a.arms: 'False' is no name of an arm"),
    (
        "a: {arms: {x: {share: 1, version: newest}}}",
        "a.arms.x.version: 'newest'; write current, previous, or",
    ),
    ("a: {arms: {x: {share: 1, list: {}}}}", "a.arms.x: no field 'list'; did you mean 'lists'?"),
    (
        "a: {arms: {x: {share: 1, lists: {diversty: 1}}}}",
        'a.arms.x.lists: Message type "SurfaceDefaults" has no',
    ),
    ("a: {arms: {x: {share: 1, lists: 7}}}", "a.arms.x.lists: is not a mapping of fields"),
    (f"a: {{{ONE}}}\nb: {{salt: a, {ONE}}}", "b.salt: the same as that of 'a', which would assign the same"),
    (
        "a: {arms: {x: {share: 1, version: previous}}}\nb: {arms: {x: {share: 1, version: current}}}",
        "b: sets version, as 'a' does, and a list may be part of both; give both a layer",
    ),
    (
        f"a: {{layer: l, slice: [0, 0.5], {ONE}}}\nb: {{layer: l, slice: [0.4, 1], {ONE}}}",
        "b.slice: overlaps that of 'a' in the layer 'l'",
    ),
    (
        f"a: {{layer: l, slice: [0, 0.5], {ONE}}}\nb: {{layer: l, slice: [0.5, 1], unit: session, {ONE}}}",
        "b.unit: experiments of one layer have one unit; 'a' has user",
    ),
    ("\n".join(f"e{n}: {{{ONE}}}" for n in range(9)), "e0: a list may be part of 9 experiments; at most 8"),
    ("\n".join(f"e{n}: {{{ONE}}}" for n in range(51)), "51 experiments; at most 50"),
    (
        "a: {arms: {" + ", ".join(f"x{n}: {{share: 0}}" for n in range(11)) + "}}",
        "a.arms: 11 arms; at most 10",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'experiments.yaml'}: ")
    assert message in said
    assert "\n" not in said


TOGETHER = [
    f"a: {{end: 2024-06-01, layer: l, slice: [0, 1], {ONE}}}\n"
    f"b: {{start: 2024-06-01, layer: l, slice: [0, 1], {ONE}}}",
    f"a: {{layer: l, slice: [0, 0.5], {ONE}}}\nb: {{layer: l, slice: [0.5, 1], {ONE}}}",
    "a: {surfaces: [x], arms: {v: {share: 1, version: previous}}}\n"
    "b: {surfaces: [y], salt: a, arms: {v: {share: 1, version: current}}}",
    "a: {end: 2024-06-01, arms: {v: {share: 1, version: previous}}}\n"
    "b: {start: 2024-06-01, arms: {v: {share: 1, version: current}}}",
    "a: {arms: {v: {share: 1, version: previous}}}\nb: {arms: {v: {share: 1, lists: {diversity: 1}}}}",
    "a: {arms: {v: {share: 1, version: previous}}}\n"
    "b: {enabled: false, arms: {v: {share: 1, version: current}}}",
    "\n".join(f"e{n}: {{layer: l, slice: [{n / 20}, {(n + 1) / 20}], {ONE}}}" for n in range(20)),
]


@pytest.mark.parametrize("text", TOGETHER)
def test_what_can_run_together_is_accepted(tmp_path: Path, text: str) -> None:
    assert len(read(tmp_path, text)) >= 2


def test_experiments_of_a_layer_exclude_each_other_and_have_their_slices(tmp_path: Path) -> None:
    halves = ONE.replace("1", "0.5")
    one, other = read(
        tmp_path, f"a: {{layer: l, slice: [0, 0.4], {halves}}}\nb: {{layer: l, slice: [0.4, 1], {ONE}}}"
    )
    units = [f"u{n}" for n in range(20_000)]
    first = {unit for unit in units if one.assign(unit)}
    second = {unit for unit in units if other.assign(unit)}
    assert first.isdisjoint(second)
    assert len(second) == pytest.approx(12_000, abs=300)  # 4 standard deviations
    assert len(first) == pytest.approx(4_000, abs=230)  # half of the slice: the position in it is another one


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["user", "session", "previous", "current", V1, "2024-01-01", "home", ".", "/", "0.5"]),
)  # fmt: skip
KEYS = st.sampled_from(
    ["arms", "enabled", "end", "exclude_users", "layer", "salt", "slice", "start", "surfaces", "unit",
     "lists", "share", "version", "rules", "caps", "diversity", "a", "x"]
)  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=6)),
    max_leaves=20,
)


def fault_or_names(tmp_path: Path, text: str) -> str | list[str]:
    """Return why a file is refused, or the names of its experiments."""
    try:
        return [experiment.name for experiment in read(tmp_path, text)]
    except InputError as error:
        return str(error)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, TREES, max_size=3))
def test_no_structure_breaks_the_reader(tmp_path: Path, content: dict[str, Any]) -> None:
    names = fault_or_names(tmp_path, yaml.safe_dump(content))
    assert names == sorted(content) or (isinstance(names, str) and "\n" not in names)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(FULL)), st.integers(0, 6), st.text(max_size=4))
def test_no_edit_of_a_file_breaks_the_reader(tmp_path: Path, at: int, cut: int, put: str) -> None:
    names = fault_or_names(tmp_path, FULL[:at] + put + FULL[at + cut :])
    assert isinstance(names, list) or "\n" not in names


def store(tmp_path: Path, current: str) -> Path:
    for version in (V1, V2, V3):
        (tmp_path / "versions" / version).mkdir(parents=True)
        (tmp_path / "versions" / version / "manifest.json").write_text("{}")
    (tmp_path / "CURRENT").write_text(current + "\n")
    return tmp_path


def test_the_version_before_the_current_one(tmp_path: Path) -> None:
    folder = store(tmp_path, V3)
    assert resolve_version(folder, "previous") == V2
    assert resolve_version(folder, "previous", V2) == V1
    assert resolve_version(folder, "previous", V1) is None
    assert (resolve_version(folder, "current"), resolve_version(folder, V1)) == (V3, V1)


def test_versions_that_experiments_still_need(tmp_path: Path) -> None:
    path = tmp_path / "experiments.yaml"
    path.write_text(
        "a: {layer: l, slice: [0, 0.5], start: 2024-01-01, arms: "
        "{x: {share: 0.5, version: previous}, y: {share: 0.5, version: current}}}\n"
        f"b: {{layer: l, slice: [0.5, 1], enabled: false, arms: {{x: {{share: 1, version: {V1}}}}}}}\n"
        "c: {end: 2024-01-01, arms: {x: {share: 1, version: 20230101T000000Z-00000000000a}}}\n"
    )
    assert pinned_versions(path, store(tmp_path, V3), now=1_717_200_000) == {V1, V2, V3}
