from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conf.encoders import Pooling, Precision, TextEncoderConfig, TuningMode
from conf.errors import InputError
from encoders.text.embedding import embed_texts
from encoders.text.text_encoder import (
    Prompts,
    TextEncoder,
    family_prompts,
    load_text_encoder,
    reads_as_saved,
)
from encoders.text.trainable import choose_trainable, merge_adapters
from features.data.dataset import Dataset

TEXTS = ["trail boots", "a much longer text about a whisk and an oven and a skillet", "rose", ""]


def encode(encoder: TextEncoder, texts: list[str], prefix: str = "") -> np.ndarray:
    return embed_texts(encoder, texts, prefix, Precision.fp32)


@pytest.mark.parametrize(
    ("name", "prompts"),
    [
        ("intfloat/multilingual-e5-small", Prompts("query: ", "passage: ")),
        ("intfloat/e5-base-v2", Prompts("query: ", "passage: ")),
        ("/models/E5_large", Prompts("query: ", "passage: ")),
        ("intfloat/multilingual-e5-large-instruct", Prompts()),
        (
            "BAAI/bge-small-en-v1.5",
            Prompts("Represent this sentence for searching relevant passages: ", ""),
        ),
        ("BAAI/bge-m3", Prompts()),
        ("sentence-transformers/all-MiniLM-L6-v2", Prompts()),
        ("/models/release5", Prompts()),
        ("/srv/bge-base-en/artifacts/versions/v1/text_encoder", Prompts()),
    ],
)
def test_family_prompts(name: str, prompts: Prompts) -> None:
    assert family_prompts(name) == prompts


def test_vectors_have_unit_length_and_tell_texts_apart(encoder: TextEncoder) -> None:
    vectors = encode(encoder, TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert (vectors @ vectors.T)[~np.eye(len(TEXTS), dtype=bool)].max() < 0.999


def test_mean_pooling_by_hand_ignores_padding(encoder: TextEncoder) -> None:
    tokens = encoder.tokenize(TEXTS)
    with torch.inference_mode():
        vectors = encoder(**tokens)
        for place, text in enumerate(TEXTS):
            alone = encoder.tokenize([text])
            states = encoder.backbone(**alone).last_hidden_state[0]
            mean = torch.nn.functional.normalize(states.mean(0), dim=0)
            torch.testing.assert_close(vectors[place], mean, rtol=1e-4, atol=1e-5)


def test_cls_pooling_takes_the_first_token(bert: Path) -> None:
    encoder = load_text_encoder(TextEncoderConfig(model=str(bert), pooling=Pooling.cls)).eval()
    tokens = encoder.tokenize(["trail boots"])
    with torch.inference_mode():
        first = encoder.backbone(**tokens).last_hidden_state[:, 0]
        torch.testing.assert_close(encoder(**tokens), torch.nn.functional.normalize(first, dim=-1))


def test_embedding_keeps_the_order_and_reads_each_text_once(encoder: TextEncoder) -> None:
    texts = ["rose", "trail boots", "rose", "oven", "trail boots", "rose"]
    done: list[int] = []
    vectors = embed_texts(encoder, texts, precision=Precision.fp32, advance=done.append)
    assert sum(done) == 3
    for place, text in enumerate(texts):
        np.testing.assert_allclose(vectors[place], encode(encoder, [text])[0], atol=1e-5)
    assert np.array_equal(vectors[0], vectors[2])
    assert np.array_equal(vectors[0], vectors[5])


def test_embedding_nothing_gives_nothing(encoder: TextEncoder) -> None:
    assert encode(encoder, []).shape == (0, 32)


@pytest.mark.parametrize("training", [True, False])
def test_embedding_leaves_the_mode_as_it_was(encoder: TextEncoder, training: bool) -> None:
    encoder.train(training)
    encode(encoder, ["rose"])
    assert encoder.training is training


def test_the_prefix_is_read(encoder: TextEncoder) -> None:
    assert np.allclose(encode(encoder, ["boots"], "trail "), encode(encoder, ["trail boots"]), atol=1e-6)
    assert not np.allclose(encode(encoder, ["boots"], "trail "), encode(encoder, ["boots"]), atol=1e-3)


def test_long_texts_are_cut_to_what_the_model_can_read(bert: Path) -> None:
    encoder = load_text_encoder(TextEncoderConfig(model=str(bert), max_tokens=500)).eval()
    assert encoder.max_tokens == 24
    long = encode(encoder, ["rose " * 100, "rose " * 22])
    np.testing.assert_allclose(long[0], long[1], atol=1e-6)


def test_half_precision_stays_close(encoder: TextEncoder) -> None:
    half = embed_texts(encoder, TEXTS, precision=Precision.bf16)
    assert half.dtype == np.float32
    assert (half * encode(encoder, TEXTS)).sum(1).min() > 0.99


@pytest.mark.parametrize("pooling", list(Pooling))
def test_a_saved_folder_gives_the_same_vectors_in_sentence_transformers(
    bert: Path, tmp_path: Path, dataset: Dataset, pooling: Pooling
) -> None:
    from sentence_transformers import SentenceTransformer

    config = TextEncoderConfig(
        model=str(bert), pooling=pooling, max_tokens=12, query_prefix="query: ", passage_prefix="passage: "
    )
    encoder = load_text_encoder(config).eval()
    encoder.save(tmp_path / "saved")
    texts = [*dataset.catalogue.texts[:10], *TEXTS, "rose " * 50]
    other = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    for prompt, prefix in (("query", "query: "), ("document", "passage: ")):
        theirs = other.encode(texts, prompt_name=prompt, show_progress_bar=False)
        cosines = (theirs * encode(encoder, texts, prefix)).sum(1)
        assert cosines.min() > 0.9999
    plain = other.encode(texts, show_progress_bar=False)
    assert (plain * encode(encoder, texts, "passage: ")).sum(1).min() > 0.9999, "items are the default"


def test_a_saved_folder_loads_with_its_own_pooling_and_prompts(bert: Path, tmp_path: Path) -> None:
    first = load_text_encoder(
        TextEncoderConfig(
            model=str(bert), pooling=Pooling.cls, query_prefix="find ", passage_prefix="", max_tokens=16
        )
    ).eval()
    first.save(tmp_path / "e5-saved")
    again = load_text_encoder(TextEncoderConfig(model=str(tmp_path / "e5-saved"), max_tokens=16)).eval()
    assert again.pooling is Pooling.cls
    assert again.prompts == Prompts("find ", "")
    assert np.array_equal(encode(again, TEXTS), encode(first, TEXTS))


def test_an_encoder_reads_texts_as_it_was_saved_or_not(bert: Path, tmp_path: Path) -> None:
    """Vectors may be taken over only where pooling, the items' prompt and the longest text are the same."""
    settings = TextEncoderConfig(model=str(bert), max_tokens=12, passage_prefix="passage: ")
    load_text_encoder(settings).save(tmp_path)
    again = replace(settings, model=str(tmp_path), passage_prefix=None)
    assert reads_as_saved(load_text_encoder(again), tmp_path)
    assert reads_as_saved(load_text_encoder(replace(again, query_prefix="query: ")), tmp_path)
    for changed in ({"max_tokens": 8}, {"pooling": Pooling.cls}, {"passage_prefix": ""}):
        assert not reads_as_saved(load_text_encoder(replace(again, **changed)), tmp_path), changed
    assert not reads_as_saved(load_text_encoder(again), bert), (
        "a folder that does not say how long its texts are"
    )


def test_the_configs_own_prompts_win(bert: Path) -> None:
    encoder = load_text_encoder(TextEncoderConfig(model=str(bert), query_prefix="", passage_prefix="item: "))
    assert encoder.prompts == Prompts("", "item: ")


def test_a_model_that_is_not_there_is_one_readable_line(tmp_path: Path) -> None:
    missing = tmp_path / "nothing-here"
    with pytest.raises(InputError) as caught:
        load_text_encoder(TextEncoderConfig(model=str(missing)))
    assert str(caught.value).startswith(f"text_encoder.model: cannot load '{missing}'")
    assert "\n" not in str(caught.value)


def test_a_damaged_model_is_an_input_error(bert: Path, tmp_path: Path) -> None:
    for file in bert.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-type"}))
    with pytest.raises(InputError, match="text_encoder.model"):
        load_text_encoder(TextEncoderConfig(model=str(tmp_path)))
    (tmp_path / "config.json").write_bytes((bert / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((bert / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(InputError, match="text_encoder.model"):
        load_text_encoder(TextEncoderConfig(model=str(tmp_path)))


def test_merged_adapters_are_plain_weights_with_the_same_vectors(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    names = set(encoder.state_dict())
    untouched = encode(encoder, TEXTS)
    torch.manual_seed(0)
    choose_trainable(encoder, TextEncoderConfig(mode=TuningMode.lora, lora_rank=4))
    learning = [n for n, p in encoder.named_parameters() if p.requires_grad]
    assert learning
    assert all("lora" in name for name in learning)
    encoder.eval()
    np.testing.assert_allclose(encode(encoder, TEXTS), untouched, atol=1e-6)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    adapted = encode(encoder, TEXTS)
    assert np.abs(adapted - untouched).max() > 0.05
    merge_adapters(encoder)
    assert set(encoder.state_dict()) == names
    np.testing.assert_allclose(encode(encoder, TEXTS), adapted, atol=1e-5)
    encoder.save(tmp_path / "merged")
    again = load_text_encoder(TextEncoderConfig(model=str(tmp_path / "merged"), max_tokens=24)).eval()
    np.testing.assert_allclose(encode(again, TEXTS), adapted, atol=1e-5)
    assert not list((tmp_path / "merged").glob("adapter*"))


def test_frozen_layers_stay_and_take_the_embeddings_with_them(encoder: TextEncoder) -> None:
    choose_trainable(encoder, TextEncoderConfig(frozen_layers=1))
    for name, parameter in encoder.named_parameters():
        frozen = "embeddings." in name or "encoder.layer.0." in name
        assert parameter.requires_grad is not frozen, name


def test_full_tuning_freezes_nothing(encoder: TextEncoder) -> None:
    choose_trainable(encoder, TextEncoderConfig(frozen_layers=0))
    assert all(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize("layers", [2, 3])
def test_a_model_with_every_layer_frozen_is_an_input_error(encoder: TextEncoder, layers: int) -> None:
    with pytest.raises(
        InputError, match=f"frozen_layers={layers}: the model has 2 layers.*set it to 1 or less"
    ):
        choose_trainable(encoder, TextEncoderConfig(frozen_layers=layers))


def test_layers_that_cannot_be_found_are_an_input_error(encoder: TextEncoder) -> None:
    encoder.backbone = torch.nn.Linear(2, 2)  # type: ignore[assignment]
    with pytest.raises(InputError, match="frozen_layers: cannot tell the layers of Linear"):
        choose_trainable(encoder, TextEncoderConfig(frozen_layers=1))
