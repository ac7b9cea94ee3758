"""An encoder in eight bits reads as it did, is loaded from its files alone, and names a missing package."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from conf.encoders import Precision, TextEncoderConfig
from conf.errors import InputError
from encoders.text.compiled_text_encoder import CompiledTextEncoder, FrozenTextEncoder
from encoders.text.int8_text_encoder import (
    FOLDER,
    INT8,
    MODEL,
    Int8TextEncoder,
    check_export,
    export_int8,
    float_precision,
    frozen_text_encoder,
)
from encoders.text.text_encoder import TextEncoder, load_text_encoder
from encoders.text.tokens import TokenArray

TEXTS = [
    f"{colour} {thing} for {place}"
    for colour in ("red", "blue", "green", "large")
    for thing in ("kettle", "lantern", "mug", "garden chair", "cake tin", "door mat of wood")
    for place in ("kitchen", "garden", "the holidays")
]


@pytest.fixture(scope="module")
def mini() -> TextEncoder:
    """The shipped encoder: rounding to eight bits is harmless only for weights that have learned."""
    return load_text_encoder(TextEncoderConfig(max_tokens=32)).eval()


@pytest.fixture(scope="module")
def folder(mini: TextEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("exported")
    mini.save(made)
    export_int8(mini, TokenArray.tokenized(mini.tokenizer, TEXTS, mini.max_tokens), made, seed=0)
    return made


@pytest.fixture(scope="module")
def exported(mini: TextEncoder, folder: Path) -> Int8TextEncoder:
    return Int8TextEncoder(mini, folder)


def test_vectors_stay_close_and_neighbours_stay(mini: TextEncoder, exported: FrozenTextEncoder) -> None:
    exact = CompiledTextEncoder(mini, Precision.fp32).embed(TEXTS)
    vectors = exported.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), mini.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4)
    assert (vectors * exact).sum(1).min() > 0.99
    assert not np.allclose(vectors, exact, atol=1e-4)  # these are rounded
    nearest = [np.argsort(-(one @ one.T), axis=1)[:, 1:6] for one in (exact, vectors)]
    kept = [len(np.intersect1d(a, b)) for a, b in zip(*nearest, strict=True)]
    assert np.mean(kept) > 4.3


def test_a_text_is_read_alike_alone_and_beside_longer_ones(exported: FrozenTextEncoder) -> None:
    together = exported.embed(TEXTS)
    alone = np.concatenate([exported.embed([text]) for text in TEXTS[:8]])
    assert (together[:8] * alone).sum(1).min() > 0.9995
    assert np.array_equal(exported.embed(TEXTS), together)


def test_callers_at_once_get_their_own_vectors(exported: FrozenTextEncoder) -> None:
    expected = {text: exported.embed([text])[0] for text in TEXTS[:6]}
    found: dict[str, list[np.ndarray]] = {text: [] for text in expected}

    def call(text: str) -> None:
        for _ in range(20):
            found[text].append(exported.embed([text])[0])

    threads = [threading.Thread(target=call, args=(text,)) for text in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for text, vectors in found.items():
        assert len(vectors) == 20
        for vector in vectors:
            np.testing.assert_allclose(vector, expected[text], atol=1e-6)


def test_weights_of_the_export_alone_are_held(
    mini: TextEncoder, folder: Path, exported: FrozenTextEncoder
) -> None:
    assert sum(p.numel() for p in exported.parameters()) == 0
    assert exported.dim == mini.dim
    size = sum(path.stat().st_size for path in (folder / FOLDER).iterdir())
    assert size < (folder / "model.safetensors").stat().st_size / 3


def test_precision_of_a_bundle_selects_the_encoder(mini: TextEncoder, folder: Path) -> None:
    cpu = torch.device("cpu")
    assert isinstance(frozen_text_encoder(mini, folder, INT8, cpu), Int8TextEncoder)
    assert isinstance(frozen_text_encoder(mini, folder, "fp32", cpu), CompiledTextEncoder)
    assert [float_precision(stored) for stored in (INT8, "bf16", "fp32")] == [
        Precision.fp32,
        Precision.bf16,
        Precision.fp32,
    ]


def test_a_missing_package_is_named_with_the_extra(
    monkeypatch: pytest.MonkeyPatch, mini: TextEncoder, folder: Path
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(InputError, match=r"export=openvino needs nncf.*pip install 'shelfwise\[openvino\]'"):
        check_export()
    Int8TextEncoder(mini, folder)  # a server needs no NNCF
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match="needs openvino, which is not installed"):
        Int8TextEncoder(mini, folder)


def test_nothing_is_reported_to_others(exported: FrozenTextEncoder) -> None:
    assert sys.modules["openvino_telemetry"] is None


def test_a_damaged_export_is_named(mini: TextEncoder, folder: Path, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / MODEL).write_bytes((folder / FOLDER / MODEL).read_bytes()[:500])
    with pytest.raises(InputError, match=r"openvino/model\.xml: cannot be loaded"):
        Int8TextEncoder(mini, tmp_path)
