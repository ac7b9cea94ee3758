"""How the text encoder learns: all weights, those above some layers, or adapters; with or without dropout."""

from __future__ import annotations

import warnings
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from conf.encoders import TextEncoderConfig, TuningMode
from conf.errors import InputError
from encoders.text.text_encoder import TextEncoder


def _layers(backbone: nn.Module) -> nn.ModuleList | None:
    """Return the stack of transformer layers, whose name depends on the model family."""
    count = int(getattr(getattr(backbone, "config", None), "num_hidden_layers", 0))
    stacks = [m for m in backbone.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    return stacks[0] if stacks else None


def choose_trainable(encoder: TextEncoder, config: TextEncoderConfig) -> None:
    """Freeze weights by the mode, or wrap the backbone with LoRA adapters (Hu et al. 2022)."""
    if config.mode is TuningMode.lora:
        adapters = LoraConfig(
            r=config.lora_rank,
            lora_alpha=2 * config.lora_rank,
            lora_dropout=0.05,
            target_modules="all-linear",
        )
        with warnings.catch_warnings():
            # peft uses a name that transformers has deprecated.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            encoder.backbone = get_peft_model(encoder.backbone, adapters)  # type: ignore[assignment]
        return
    if config.frozen_layers > 0:
        backbone: Any = encoder.backbone
        layers = _layers(backbone)
        if layers is None:
            raise InputError(
                "text_encoder.frozen_layers: cannot tell the layers of "
                f"{type(backbone).__name__}; set it to 0"
            )
        if config.frozen_layers >= len(layers):
            raise InputError(
                f"text_encoder.frozen_layers={config.frozen_layers}: the model has {len(layers)} layers, so "
                f"nothing would learn; set it to {len(layers) - 1} or less, or text_encoder.mode=frozen"
            )
        embeddings = getattr(backbone, "embeddings", backbone.get_input_embeddings())
        for part in (embeddings, *layers[: config.frozen_layers]):
            part.requires_grad_(False)


def set_dropout(encoder: TextEncoder, rate: float) -> None:
    """Set the rate of the dropout layers that the model has, and its mode accordingly.

    A model is loaded in evaluation mode, in which dropout does nothing, and Lightning leaves modules in the
    mode that they have.

    Args:
        encoder: before `choose_trainable`, whose adapters have a rate of their own.
        rate: 0 leaves dropout out.

    Raises:
        InputError: the model has no such layers.

    """
    layers = [part for part in encoder.backbone.modules() if isinstance(part, nn.Dropout)]
    if rate > 0 and not layers:
        raise InputError(
            f"text_encoder.dropout={rate:g}: {type(encoder.backbone).__name__} has no dropout layers; set it "
            "to 0"
        )
    for layer in layers:
        layer.p = rate
    encoder.backbone.train(rate > 0)


def merge_adapters(encoder: TextEncoder) -> None:
    """Fold LoRA adapters into the weights, so that the saved encoder is a plain one."""
    backbone: Any = encoder.backbone
    if isinstance(backbone, PeftModel):
        encoder.backbone = backbone.merge_and_unload()
