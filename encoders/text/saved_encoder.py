"""Loading the text encoder of a bundle: without transformers where `bert` has its network."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from safetensors import SafetensorError

from conf.encoders import TextEncoderConfig
from conf.errors import InputError
from encoders.text.bert import CONFIG, FAMILIES, Bert, BertConfig
from encoders.text.saved_tokenizer import TOKENIZER, SavedTokenizer
from encoders.text.text_encoder import TextEncoder, load_text_encoder, pooling_of, prompts_of


def load_saved_encoder(folder: Path, max_tokens: int) -> TextEncoder:
    """Return the encoder of a folder, with its own pooling and prompts, for inference.

    Args:
        folder: as `TextEncoder.save` writes it.
        max_tokens: longest text in tokens.

    Raises:
        InputError: it cannot be loaded, or needs transformers, which is not installed.
    """
    try:
        config = BertConfig.read(folder) if (folder / TOKENIZER).is_file() else None
        if config is None:
            return _by_transformers(folder, max_tokens)
        network, tokenizer = Bert.load(folder, config), SavedTokenizer(folder)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        line = str(error).strip().splitlines()[0]
        raise InputError(f"{folder}: cannot be loaded ({line}); roll back or publish again") from error
    return TextEncoder(
        network,  # type: ignore[arg-type] # has what inference uses of transformers' classes
        tokenizer,  # type: ignore[arg-type]
        pooling_of(folder),
        prompts_of(folder, str(folder)),
        max_tokens,
    )


def _by_transformers(folder: Path, max_tokens: int) -> TextEncoder:
    if importlib.util.find_spec("transformers") is None:
        family = json.loads((folder / CONFIG).read_text()).get("model_type", "unknown")
        needs = f"a network of the family '{family}' needs"
        if not (folder / TOKENIZER).is_file():
            needs = f"a tokenizer without {TOKENIZER} needs"
        elif family in FAMILIES:
            needs = f"this network of the family '{family}', not in its usual form, needs"
        raise InputError(
            f"{folder}: {needs} the library transformers on the server: pip install 'transformers>=5.0', or "
            f"train with a usual model of {', '.join(FAMILIES)}"
        )
    return load_text_encoder(TextEncoderConfig(model=str(folder), max_tokens=max_tokens)).eval()
