"""Bundles made in memory: real ones, without training and without files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from conf.encoders import Precision
from conf.schema import IndexConfig
from encoders.factors.co_purchase import Factors
from encoders.text.compiled_text_encoder import CompiledTextEncoder
from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset
from ranking.assembly import PcaProjection
from ranking.bundle.bundle import Bundle, write_bundle
from ranking.bundle.store import VERSIONS, current_version, publish_version
from tests.synthetic import make_recommender, random_towers, read_json

TEMPLATE = {"text_fields": ["title", "brand"], "text_fallback_fields": [], "max_text_chars": 1000}


def make_bundle(
    dataset: Dataset,
    encoder: TextEncoder,
    *,
    trained: bool = True,
    factors: Factors | None = None,
    version: str = "v1",
) -> Bundle:
    """Make a bundle with untrained towers (or, not `trained`, without any) and no ranking head."""
    bundle = Bundle(
        version,
        {
            "kinds": dataset.kinds, "exclude_seen": False, "data_end": 0, "template": TEMPLATE,
            "precision": "fp32",
        },
        dataset.catalogue,
        None,  # type: ignore[arg-type]
        CompiledTextEncoder(encoder, Precision.fp32),
        None,  # type: ignore[arg-type]
    )  # fmt: skip
    texts = bundle.encode_items(dataset.catalogue.texts)
    towers = random_towers(texts.shape[1], len(texts), len(dataset.kinds)) if trained else None
    recommender = make_recommender(dataset, texts, towers=towers, factors=factors)
    return replace(bundle, recommender=recommender, sketch=PcaProjection.fit(texts))


def publish_bundle(store: Path, bundle: Bundle, encoder_folder: Path) -> str:
    """Write a bundle into a store and make it current, as training does; return the version's name."""
    recommender = bundle.recommender
    describe = {
        **bundle.manifest,
        "counts": {"items": len(bundle.catalogue), "events": 1},
        "click_kinds": recommender.click_kinds.tolist(),
        "candidates": asdict(recommender.config),
        "index": asdict(IndexConfig()),
        "max_tokens": 24,
    }

    def write(folder: Path) -> None:
        write_bundle(folder, recommender, bundle.catalogue, bundle.template, encoder_folder, "{}\n")

    return publish_version(store, write, describe)


def published_again(store: Path, change: Callable[[Path], None]) -> str:
    """Publish the current version once more, with changed files and right hashes; return its name."""
    folder = store / VERSIONS / current_version(store)
    manifest = read_json(folder / "manifest.json")
    describe = {
        k: v for k, v in manifest.items() if k not in ("format_version", "version", "created", "files")
    }

    def write(target: Path) -> None:
        shutil.copytree(folder, target, dirs_exist_ok=True, ignore=lambda *_: {"manifest.json"})
        change(target)

    return publish_version(store, write, describe)
