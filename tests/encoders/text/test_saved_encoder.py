"""The encoder of a bundle without transformers: the same vectors as by it, bit for bit."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DistilBertConfig, DistilBertModel, RobertaConfig, RobertaModel

from conf.encoders import Precision, TextEncoderConfig
from conf.errors import InputError
from encoders.text.compiled_text_encoder import CompiledTextEncoder
from encoders.text.saved_encoder import load_saved_encoder
from encoders.text.text_encoder import load_text_encoder
from features.data.dataset import Dataset
from tests.encoders.text.test_multilingual import FOREIGN, tiny_xlm_roberta

MOST = 24
AWKWARD = ["", "rose " * 50, "naïve café, ÀÉ", "[SEP] <mask> </s> <unk>", "\x00 \t Ⅻ\u0301", *FOREIGN]


def texts_of(dataset: Dataset) -> list[str]:
    return [*dataset.catalogue.texts, *AWKWARD]


@pytest.fixture(params=["bert", "roberta", "xlm-roberta"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, bert: Path, dataset: Dataset) -> Path:
    """A tiny model of a family, as a pipeline saves it."""
    texts = texts_of(dataset)
    if request.param == "bert":
        source = bert
    else:
        source = tiny_xlm_roberta(tmp_path / "hub", [text for text in texts if text.strip()])
    if request.param == "roberta":
        known = json.loads((source / "config.json").read_text())
        torch.manual_seed(1)
        RobertaModel(
            RobertaConfig(
                vocab_size=known["vocab_size"], hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
                intermediate_size=96, max_position_embeddings=MOST + 2, type_vocab_size=1,
                pad_token_id=known["pad_token_id"], initializer_range=0.3,
            )
        ).save_pretrained(source)  # fmt: skip
    config = TextEncoderConfig(model=str(source), query_prefix="query: ", passage_prefix="passage: ")
    load_text_encoder(config).save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["model_type"] == request.param
    return tmp_path / "saved"


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
def test_vectors_are_those_of_transformers(folder: Path, dataset: Dataset, precision: Precision) -> None:
    theirs = load_text_encoder(TextEncoderConfig(model=str(folder), max_tokens=MOST)).eval()
    ours = load_saved_encoder(folder, MOST)
    assert type(ours.backbone).__name__ == "Bert"
    assert (ours.prompts, ours.pooling, ours.max_tokens, ours.dim) == (
        theirs.prompts, theirs.pooling, theirs.max_tokens, theirs.dim,
    )  # fmt: skip
    texts = texts_of(dataset)
    expected = CompiledTextEncoder(theirs, precision).embed(texts, theirs.prompts.passage)
    found = CompiledTextEncoder(ours, precision).embed(texts, ours.prompts.passage)
    assert expected.std(axis=0).min() > 0.01  # the model tells texts apart
    np.testing.assert_array_equal(found, expected)


def test_tokens_are_those_of_transformers(folder: Path, dataset: Dataset) -> None:
    theirs = load_text_encoder(TextEncoderConfig(model=str(folder), max_tokens=MOST)).tokenizer
    ours = load_saved_encoder(folder, MOST).tokenizer
    texts = texts_of(dataset)
    for length in (5, MOST, 6):
        cut = {"truncation": True, "max_length": length}
        found = ours(texts, **cut)["input_ids"]
        assert max(map(len, found)) == length
        assert found == theirs(texts, **cut)["input_ids"]
    assert ours(AWKWARD[1])["input_ids"] == theirs(AWKWARD[1], verbose=False)["input_ids"]  # whole again
    assert (ours.pad_token_id, ours.unk_token_id) == (theirs.pad_token_id, theirs.unk_token_id)
    assert ours.model_max_length == theirs.model_max_length


def test_weights_under_a_prefix_and_without_use_are_read(bert: Path, tmp_path: Path) -> None:
    """As a file of a model with a head has them."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "prefixed"
    shutil.copytree(bert, folder)
    weights = {f"bert.{name}": weight for name, weight in load_file(bert / "model.safetensors").items()}
    save_file({**weights, "cls.predictions.bias": torch.zeros(3)}, folder / "model.safetensors")
    plain, prefixed = load_saved_encoder(bert, MOST), load_saved_encoder(folder, MOST)
    for text in ("rose", "trail boots"):
        tokens = torch.tensor([plain.tokenizer(text)["input_ids"]])
        torch.testing.assert_close(plain(tokens), prefixed(tokens), rtol=0, atol=0)


def distilbert(bert: Path, folder: Path) -> Path:
    """A family that is not computed here, with the tokenizer of another."""
    shutil.copytree(bert, folder)
    vocabulary = json.loads((bert / "config.json").read_text())["vocab_size"]
    config = DistilBertConfig(vocab_size=vocabulary, dim=32, n_layers=1, n_heads=2, hidden_dim=64)
    DistilBertModel(config).save_pretrained(folder)
    return folder


def test_another_family_is_loaded_by_transformers(bert: Path, tmp_path: Path) -> None:
    encoder = load_saved_encoder(distilbert(bert, tmp_path / "distilbert"), MOST)
    assert type(encoder.backbone) is DistilBertModel
    assert not encoder.training


def test_another_family_without_transformers_is_one_readable_line(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec
    absent = lambda name: None if name == "transformers" else there(name)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    words, other = tmp_path / "words", tmp_path / "other"  # both of a family that is computed here
    shutil.copytree(bert, words)
    (words / "tokenizer.json").unlink()
    shutil.copytree(bert, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "hidden_act": "silu"}))
    for folder, needs in (
        (distilbert(bert, tmp_path / "distilbert"), "a network of the family 'distilbert' needs"),
        (words, "a tokenizer without tokenizer.json needs"),
        (other, "this network of the family 'bert', not in its usual form, needs"),
    ):
        with pytest.raises(InputError) as caught:
            load_saved_encoder(folder, MOST)
        assert str(caught.value) == (
            f"{folder}: {needs} the library transformers on the server: "
            "pip install 'transformers>=5.0', or train with a usual model of bert, roberta, xlm-roberta"
        )


def test_names_of_special_tokens_in_a_text_are_split_where_the_tokenizer_says_so(
    bert: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "splits"
    shutil.copytree(bert, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "split_special_tokens": True}))
    theirs = load_text_encoder(TextEncoderConfig(model=str(folder), max_tokens=MOST)).tokenizer
    ours = load_saved_encoder(folder, MOST).tokenizer
    found = ours(["[SEP] rose"])["input_ids"]
    assert found == theirs(["[SEP] rose"])["input_ids"]
    assert found != load_saved_encoder(bert, MOST).tokenizer(["[SEP] rose"])["input_ids"]


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_file_is_one_readable_line(bert: Path, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(bert, folder)
    (folder / file).write_bytes((folder / file).read_bytes()[:100])
    with pytest.raises(InputError) as caught:
        load_saved_encoder(folder, MOST)
    message = str(caught.value)
    assert message.startswith(f"{folder}: cannot be loaded (")
    assert "\n" not in message


def test_weights_of_another_size_are_one_readable_line(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(bert, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 7}))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_saved_encoder(folder, MOST)


def test_the_import_brings_no_transformers() -> None:
    code = (
        "import sys; import ranking.bundle.bundle, ranking.live.updates, ranking.insight.new_product; "
        "sys.exit(', '.join({'transformers', 'scipy.sparse', 'bm25s', 'pandas'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
