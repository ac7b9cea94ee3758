from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from conf.errors import InputError
from conf.schema import PipelineConfig
from encoders.factors.affinity import AFFINITY_FILE, Affinity
from encoders.factors.co_purchase import FACTORS_FILE, Factors
from encoders.towers.towers import Towers
from encoders.training.train import ENCODER_FOLDER, RANKER_TOWERS, TEXT_VECTORS, TOWERS, train_encoder
from features.data.dataset import Dataset, load_dataset
from features.data.splits import make_split
from features.prepare import prepare
from ranking.bundle.bundle import Bundle, load_bundle
from ranking.bundle.store import CURRENT, VERSIONS, current_version, publish_version, verify, versions
from ranking.pipeline.publish import publish
from ranking.recommender import Recommender
from ranking.scoring.ranker import Ranker
from ranking.training.text_arrays import TextArrays
from ranking.training.train import RANKER_FOLDER, build_recommender, train_ranker
from ranking.types import Recommendation, Request
from tests.bundles import published_again
from tests.synthetic import EMPTY, World, pipeline_config, request_of

QUIET = Console(quiet=True)


def store_of(config: PipelineConfig) -> Path:
    return Path(config.work_dir) / "artifacts"


@pytest.fixture(scope="module")
def shop(trained: PipelineConfig) -> Dataset:
    return load_dataset(Path(trained.work_dir) / "dataset")


@pytest.fixture(scope="module")
def bundle(trained: PipelineConfig) -> Bundle:
    return load_bundle(store_of(trained))


@pytest.fixture
def copy(trained: PipelineConfig, tmp_path: Path) -> PipelineConfig:
    """A copy of the finished run that a test may spoil."""
    shutil.copytree(trained.work_dir, tmp_path / "work")
    return replace(trained, work_dir=str(tmp_path / "work"))


def original(config: PipelineConfig, shop: Dataset) -> Recommender:
    """The Recommender as `publish` puts it together, without going through a bundle."""
    work = Path(config.work_dir)
    split = make_split(shop, config.split, [])
    return build_recommender(
        config,
        shop,
        TextArrays.of(
            config,
            np.load(work / ENCODER_FOLDER / TEXT_VECTORS),
            Affinity.load(work / ENCODER_FOLDER / AFFINITY_FILE),
        ),
        Towers.load(work / ENCODER_FOLDER / TOWERS),
        split.state_end,
        split.state_time,
        Ranker.load(work / RANKER_FOLDER),
    )


def requests(shop: Dataset, text: np.ndarray) -> list[Request]:
    asked = [request_of(shop, user) for user in range(12)]
    allowed = np.arange(60) % 3 == 0
    asked += [
        replace(asked[0], exclude_seen=True, explain=True),
        replace(asked[1], allowed=allowed, diversity=0.5, explain=True),
        replace(asked[2], history=EMPTY),
        replace(asked[3], intent=text[5], k=50),
    ]
    return asked


def test_a_loaded_bundle_gives_exactly_the_lists_it_was_published_with(
    trained: PipelineConfig, shop: Dataset, bundle: Bundle
) -> None:
    asked = requests(shop, bundle.text_vectors)
    before: Sequence[Recommendation] = original(trained, shop).recommend(asked)
    assert bundle.recommender.recommend(asked) == before
    assert len({tuple(i.row for i in answer.items) for answer in before}) > 10
    assert all(np.isfinite(i.p_purchase) for answer in before for i in answer.items)


def test_factors_survive_publishing(trained: PipelineConfig, shop: Dataset, bundle: Bundle) -> None:
    before, after = original(trained, shop).factors, bundle.recommender.factors
    assert before is not None
    assert after is not None
    assert after.vectors.shape == (60, 8)
    assert after.vectors.any()
    for name in Factors.__dataclass_fields__:
        assert np.array_equal(getattr(before, name), getattr(after, name)), name
    assert np.array_equal(bundle.recommender.arrays.factor_vectors, after.vectors)
    # What only the test window holds is unknown to the factors as to the statistics.
    unsold = bundle.recommender.arrays.statistics.count == 0
    assert np.array_equal(unsold, ~after.vectors.any(axis=1))


def test_factors_that_are_switched_off_are_gone_from_the_next_bundle(copy: PipelineConfig) -> None:
    off = replace(copy, factors=replace(copy.factors, dim=0))
    train_ranker(off, QUIET)
    publish(off, QUIET)
    bundle = load_bundle(store_of(off))
    assert bundle.recommender.factors is None
    assert FACTORS_FILE not in bundle.manifest["files"]
    assert bundle.recommender.arrays.factor_vectors.shape == (60, 0)


def test_similar_items_survive_publishing(trained: PipelineConfig, shop: Dataset, bundle: Bundle) -> None:
    vectors, none = bundle.text_vectors[:5], np.zeros(0, np.int32)
    for before, after in zip(
        original(trained, shop).similar(vectors, 7, none),
        bundle.recommender.similar(vectors, 7, none),
        strict=True,
    ):
        assert np.array_equal(before, after)


def test_the_manifest_describes_what_is_inside(
    trained: PipelineConfig, shop: Dataset, bundle: Bundle
) -> None:
    split = make_split(shop, trained.split, [])
    manifest = bundle.manifest
    assert manifest["counts"] == {
        "items": 60, "events": int((split.state_end - shop.events.offsets[:-1]).sum())
    }  # fmt: skip
    assert manifest["counts"]["events"] < len(shop.events), "the test window is not known"
    assert manifest["dims"] == {"text": 32, "item": 16}
    assert bundle.data_end == split.state_time
    assert bundle.kinds == ["purchase", "click"]
    assert manifest["click_kinds"] == [False, True]
    assert manifest["trained"] == {"towers": True, "ranker": True}
    assert bundle.version == current_version(store_of(trained)) == manifest["version"]


def test_the_bundle_holds_no_pickle_and_nothing_unlisted(trained: PipelineConfig, bundle: Bundle) -> None:
    folder = store_of(trained) / VERSIONS / bundle.version
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert names == set(bundle.manifest["files"]) | {"manifest.json"}
    allowed = {".json", ".yaml", ".parquet", ".npy", ".faiss", ".safetensors", ".txt"}
    assert {Path(n).suffix for n in names} <= allowed
    for vectors in folder.glob("*.npy"):
        np.load(vectors, allow_pickle=False)


def test_texts_are_encoded_as_the_catalogue_was(shop: Dataset, bundle: Bundle) -> None:
    again = bundle.encode_items(shop.catalogue.texts)
    assert (again * bundle.text_vectors).sum(1).min() > 0.9999
    assert np.array_equal(bundle.encode_queries(["trail boots"]), bundle.encode_items(["trail boots"]))
    assert bundle.template.fields == ("title", "brand")


def test_histories_of_every_user_go_along(trained: PipelineConfig, shop: Dataset) -> None:
    histories = pl.read_parquet(store_of(trained) / "histories.parquet")
    counts = dict(histories.group_by("user_id").len().iter_rows())
    expected = {name: int(n) for name, n in zip(shop.user_ids, shop.events.lengths(), strict=True)}
    assert counts == expected


FILES = [
    "catalog.parquet", "item_vectors.npy", "text_vectors.npy", "index.faiss", "statistics.safetensors",
    "text_neighbours.safetensors", "config.yaml", "user_encoder.safetensors", "user_encoder.json",
    "ranker.safetensors", "ranker.json", "factors.safetensors", "text_encoder/model.safetensors",
    "text_encoder/config.json", "text_encoder/tokenizer.json", "text_encoder/1_Pooling/config.json",
    "manifest.json",
]  # fmt: skip


def test_every_kind_of_file_is_checked(bundle: Bundle) -> None:
    assert set(FILES) - {"manifest.json"} <= set(bundle.manifest["files"])


@pytest.mark.parametrize("name", FILES)
def test_loading_names_the_file_that_is_damaged(copy: PipelineConfig, name: str) -> None:
    store = store_of(copy)
    path = store / VERSIONS / current_version(store) / name
    content = path.read_bytes()
    middle = len(content) // 2
    damages = {
        "truncated": content[:middle],
        "changed": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "missing": None,
    }
    for harm, damage in damages.items():
        path.unlink(missing_ok=True)
        if damage is not None:
            path.write_bytes(damage)
        with pytest.raises(InputError) as caught:
            load_bundle(store)
        assert str(path) in str(caught.value), harm
        assert "\n" not in str(caught.value)
    path.write_bytes(content)
    load_bundle(store)


def fewer_items(folder: Path) -> None:
    catalogue = pl.read_parquet(folder / "catalog.parquet")
    catalogue.head(59).write_parquet(folder / "catalog.parquet")


def fewer_factors(folder: Path) -> None:
    factors = Factors.load(folder / FACTORS_FILE)
    replace(factors, vectors=factors.vectors[:58], dual=factors.dual[:58]).save(folder / FACTORS_FILE)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (fewer_items, "catalog.parquet: 59 rows, the manifest says 60 items"),
        (fewer_factors, "factors.safetensors: 58 rows, the manifest says 60 items"),
    ],
)
def test_counts_that_disagree_name_the_file(
    copy: PipelineConfig, spoil: Callable[[Path], None], message: str
) -> None:
    """A bundle whose hashes are right but whose parts do not fit, as a broken publisher would write it."""
    store = store_of(copy)
    version = published_again(store, spoil)
    assert verify(store / VERSIONS / version)["counts"]["items"] == 60
    with pytest.raises(InputError, match=message):
        load_bundle(store)


def test_publishing_again_without_a_change_keeps_the_version(copy: PipelineConfig) -> None:
    store = store_of(copy)
    before = versions(store)
    assert publish(copy, QUIET) == before[0]
    assert versions(store) == before


@pytest.mark.parametrize("content", [None, "garbage"])
def test_publishing_repairs_a_store_that_lost_its_pointer(copy: PipelineConfig, content: str | None) -> None:
    store = store_of(copy)
    (store / CURRENT).unlink()
    if content is not None:
        (store / CURRENT).write_text(content)
    version = publish(copy, QUIET)
    assert load_bundle(store).version == version


def test_a_finished_step_is_skipped_and_a_changed_one_is_not(copy: PipelineConfig) -> None:
    encoder = Path(copy.work_dir) / ENCODER_FOLDER / "training.json"
    ranker = Path(copy.work_dir) / RANKER_FOLDER / "training.json"
    stamps = [encoder.stat().st_mtime_ns, ranker.stat().st_mtime_ns]
    train_encoder(copy, QUIET)
    train_ranker(copy, QUIET)
    assert [encoder.stat().st_mtime_ns, ranker.stat().st_mtime_ns] == stamps
    changed = replace(copy, ranker=replace(copy.ranker, epochs=1))
    train_encoder(changed, QUIET)
    train_ranker(changed, QUIET)
    assert encoder.stat().st_mtime_ns == stamps[0]
    assert ranker.stat().st_mtime_ns != stamps[1]


def test_a_ranking_head_that_is_switched_off_is_gone_from_the_next_bundle(copy: PipelineConfig) -> None:
    off = replace(copy, ranker=replace(copy.ranker, enabled=False))
    train_ranker(off, QUIET)
    publish(off, QUIET)
    bundle = load_bundle(store_of(off))
    assert bundle.recommender.ranker is None
    assert bundle.manifest["trained"] == {
        "towers": True,
        "ranker": False,
    }


def test_other_event_weights_train_again(copy: PipelineConfig) -> None:
    before = (Path(copy.work_dir) / ENCODER_FOLDER / "stage.json").read_text()
    changed = replace(copy, data=replace(copy.data, event_weights={"purchase": 1.0, "click": 0.1}))
    prepare(changed, QUIET)
    train_encoder(changed, QUIET)
    assert (Path(copy.work_dir) / ENCODER_FOLDER / "stage.json").read_text() != before


def test_the_same_seed_and_data_give_the_same_bundle(
    trained: PipelineConfig, world: World, bert: Path, tmp_path: Path
) -> None:
    again = pipeline_config(world, bert, tmp_path, trained.split.kind)
    for step in (prepare, train_encoder, train_ranker, publish):
        step(again, QUIET)

    def content(config: PipelineConfig) -> dict[str, str]:
        store = store_of(config)
        files = verify(store / VERSIONS / current_version(store))["files"]
        return {name: entry["sha256"] for name, entry in files.items() if name != "config.yaml"}

    assert content(again) == content(trained)


def sparse_shop(folder: Path, bert: Path, events: str | None) -> PipelineConfig:
    """A catalogue of five items and few or no events."""
    (folder / "items.csv").write_text(
        "item_id,title\na,trail boots\nb,summit tent\nc,oven pan\nd,rose seed\ne,desk lamp\n"
    )
    config = pipeline_config_without_events(folder, bert)
    if events is None:
        return config
    (folder / "events.csv").write_text("user_id,item_id,timestamp\n" + events)
    return replace(config, data=replace(config.data, events=str(folder / "events.csv")))


def pipeline_config_without_events(folder: Path, bert: Path) -> PipelineConfig:
    from conf.encoders import TextEncoderConfig
    from conf.schema import DataConfig

    return PipelineConfig(
        work_dir=str(folder / "work"),
        data=DataConfig(items=str(folder / "items.csv")),
        text_encoder=TextEncoderConfig(model=str(bert), max_tokens=16, frozen_layers=0),
    )


@pytest.mark.parametrize(
    "events", [None, "u,a,1700000000\nu,b,1700000100\n"], ids=["no events", "two events"]
)
def test_a_shop_without_history_recommends_by_text_and_popularity(
    tmp_path: Path, bert: Path, events: str | None
) -> None:
    config = sparse_shop(tmp_path, bert, events)
    for step in (prepare, train_encoder, train_ranker, publish):
        step(config, QUIET)
    bundle = load_bundle(store_of(config))
    assert bundle.manifest["trained"] == {"towers": False, "ranker": False}
    assert bundle.recommender.towers is None
    assert bundle.recommender.ranker is None
    assert (bundle.recommender.factors is None) == (events is None)
    newcomer = Request(EMPTY, 1_700_000_200, k=5)
    [answer] = bundle.recommender.recommend([newcomer])
    assert sorted(i.row for i in answer.items) == [0, 1, 2, 3, 4]
    assert answer.degradation == "popularity"
    if events is not None:
        assert {i.row for i in answer.items[:2]} == {0, 1}


def one_event_each(folder: Path, bert: Path) -> PipelineConfig:
    """Return three hundred users, nearly all with a single event."""
    rng = np.random.default_rng(0)
    lines = [f"u{n},{'abcde'[rng.integers(5)]},{1_700_000_000 + 1000 * n}" for n in range(300)]
    return sparse_shop(folder, bert, "\n".join(lines) + "\n")


def test_shoppers_who_came_once_teach_nothing_and_break_nothing(tmp_path: Path, bert: Path) -> None:
    config = one_event_each(tmp_path, bert)
    for step in (prepare, train_encoder, train_ranker, publish):
        step(config, QUIET)
    assert load_bundle(store_of(config)).manifest["trained"]["towers"] is False


def test_one_shopper_with_a_long_history_is_enough_to_run(tmp_path: Path, bert: Path) -> None:
    from conf.encoders import UserEncoderConfig
    from conf.schema import RankerConfig, SplitConfig, SplitKind

    rng = np.random.default_rng(0)
    lines = [f"u,{'abcde'[rng.integers(5)]},{1_700_000_000 + 1000 * n}" for n in range(250)]
    config = sparse_shop(tmp_path, bert, "\n".join(lines) + "\n")
    config = replace(
        config,
        split=SplitConfig(kind=SplitKind.leave_one_out),
        text_encoder=replace(config.text_encoder, max_steps=2, validate_every=1, batch_size=4),
        user_encoder=UserEncoderConfig(dim=8, max_length=10, epochs=1, min_windows_per_epoch=0),
        ranker=RankerConfig(hidden=[4], epochs=1),
    )
    for step in (prepare, train_encoder, train_ranker, publish):
        step(config, QUIET)
    assert load_bundle(store_of(config)).manifest["trained"] == {"towers": True, "ranker": True}


def test_items_that_all_read_the_same_are_not_fine_tuned_on(tmp_path: Path, bert: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"u{n % 30},{'abcde'[rng.integers(5)]},{1_700_000_000 + 1000 * n}" for n in range(600)]
    config = sparse_shop(tmp_path, bert, "\n".join(lines) + "\n")
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"{i},rose\n" for i in "abcde"))
    config = replace(config, user_encoder=replace(config.user_encoder, dim=8, epochs=1))
    prepare(config, QUIET)
    train_encoder(config, QUIET)
    report = json.loads((Path(config.work_dir) / ENCODER_FOLDER / "training.json").read_text())
    assert report["stage_one"]["validation_recall"] == []
    towers = Towers.load(Path(config.work_dir) / ENCODER_FOLDER / RANKER_TOWERS)
    assert all(np.isfinite(t.numpy()).all() for t in towers.state_dict().values())


def test_a_whole_version_of_something_else_is_no_bundle(tmp_path: Path) -> None:
    publish_version(tmp_path, lambda folder: (folder / "notes.txt").touch(), {})
    with pytest.raises(InputError, match="manifest.json: lists no catalog.parquet; roll back or publish"):
        load_bundle(tmp_path)
