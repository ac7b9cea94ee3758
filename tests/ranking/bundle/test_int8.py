"""A bundle whose text encoder is exported in eight bits is served by the export."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conf.errors import InputError
from encoders.text.int8_text_encoder import FOLDER, INT8, MODEL, Int8TextEncoder, export_int8
from encoders.text.text_encoder import TextEncoder
from encoders.text.tokens import TokenArray
from features.data.dataset import Dataset
from features.text.item_text import render_rows
from ranking.bundle.bundle import TEXT_ENCODER, load_bundle
from ranking.bundle.store import VERSIONS
from ranking.catalogue.live_catalogue import ItemChange
from ranking.live.updates import LiveItems
from tests.bundles import make_bundle, publish_bundle


@pytest.fixture
def store(tmp_path: Path, dataset: Dataset, encoder: TextEncoder, bert: Path) -> Path:
    folder = tmp_path / "encoder"
    shutil.copytree(bert, folder)
    tokens = TokenArray.tokenized(encoder.tokenizer, dataset.catalogue.texts, encoder.max_tokens)
    export_int8(encoder, tokens, folder, seed=0)
    bundle = make_bundle(dataset, encoder)
    bundle = replace(bundle, manifest={**bundle.manifest, "precision": INT8})
    publish_bundle(tmp_path / "store", bundle, folder)
    return tmp_path / "store"


def test_the_export_is_hashed_and_encodes_items_and_queries(store: Path) -> None:
    bundle = load_bundle(store)
    folder = store / VERSIONS / bundle.version
    assert f"{TEXT_ENCODER}/{FOLDER}/{MODEL}" in json.loads((folder / "manifest.json").read_text())["files"]
    assert isinstance(bundle.text_encoder, Int8TextEncoder)
    texts = bundle.catalogue.texts[:5]
    np.testing.assert_allclose(bundle.encode_items(texts), bundle.text_encoder.embed(texts), atol=1e-6)
    title = bundle.catalogue.frame["title"][0]
    [vector] = LiveItems(bundle, 4).plan([ItemChange("new", {"title": title})]).vectors
    expected = bundle.encode_items(render_rows([{"title": title}], bundle.template))[0]
    np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_a_server_without_openvino_says_what_to_install(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"exported to OpenVINO needs openvino.*pip install"):
        load_bundle(store)
