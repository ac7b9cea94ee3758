"""A text encoder prepared for inference: frozen weights in the configured precision."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from conf.encoders import Precision
from encoders.device import upload
from encoders.text.text_encoder import TextEncoder
from encoders.text.tokens import TokenArray, pad
from features.data.dataset import FloatArray, LongArray

Advance = Callable[[int], None]
"""Called with the number of texts encoded, for a progress bar."""
CPU_TOKENS = 4096
"""Tokens per forward pass; the same for any number of threads, so that all processes round equally."""
GPU_TOKENS = 65_536
"""Tokens per forward pass on a GPU, where a pass takes milliseconds and its launch about one."""
GPU_AHEAD = 8
"""Forward passes on a GPU whose vectors are copied back together, so that the host can queue passes."""
PADDING = 1 / 16
"""Share of a forward pass that padding may take before another pass costs less."""


class PackedLinear(nn.Module):
    """A linear layer with weights in oneDNN's packed layout.

    PyTorch computes fp32 products with MKL, which is limited to AVX2 on processors that are not Intel's;
    oneDNN uses AVX-512 where available. `torch.compile` makes the same calls from a frozen graph.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        """Pack a copy of a layer's weights, [out, in]."""
        super().__init__()
        weight = linear.weight.detach().to(dtype)
        # Attributes, not buffers: a packed tensor can neither be saved nor moved.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, CPU_TOKENS)
        self._bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b, [..., out], for x [..., in]."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return product


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether oneDNN computes linear layers of that type here."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype is torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def native_bf16(device: torch.device) -> bool:
    """Return whether the device has instructions for bfloat16 products."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not can_pack(device, torch.float32):
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _freeze(module: nn.Module, dtype: torch.dtype, pack: bool) -> None:
    """Turn the parameters of a module and its submodules into constants of a type."""
    for name, child in module.named_children():
        if pack and type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child, dtype))
        else:
            _freeze(child, dtype, pack)
    for name, parameter in module.named_parameters(recurse=False):
        setattr(module, name, nn.Parameter(parameter.detach().to(dtype), requires_grad=False))


def batches(lengths: LongArray, budget: int) -> Iterator[tuple[int, int]]:
    """Divide texts into forward passes; yields first and last + 1.

    Texts of one length share a pass, up to the budget. Longer ones are added while the padding stays below a
    share of the budget, the least cost of another pass.

    Args:
        lengths: tokens of each text, [texts], ascending.
        budget: tokens of a pass, padding included; a longer text has a pass of its own.

    """
    start, padding = 0, 0.0
    for place in range(1, len(lengths) + 1):
        if place < len(lengths):
            longer = int(lengths[place]) - int(lengths[place - 1])
            padding += longer * (place - start)
            size = int(lengths[place]) * (place + 1 - start)
            if size <= budget and padding <= budget * PADDING:
                continue
        yield start, place
        start, padding = place, 0.0


class FrozenTextEncoder(TextEncoder):
    """Texts to unit vectors, with weights fixed at construction."""

    device: torch.device
    """Where ids are sent and vectors are made."""

    def budget(self) -> int:
        """Return the tokens of a forward pass."""
        return CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS

    def embed(self, texts: list[str], prefix: str = "", advance: Advance | None = None) -> FloatArray:
        """Encode texts into unit vectors, each distinct text once.

        Args:
            texts: raw texts without prompt.
            prefix: prompt put before each text.
            advance: called with the number of distinct texts encoded.

        Returns:
            float32 [texts, dim], in the order given.

        """
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        prompted = [prefix + text for text in places]
        vectors = self.embed_tokens(TokenArray.tokenized(self.tokenizer, prompted, self.max_tokens), advance)
        return vectors if len(places) == len(texts) else vectors[[places[text] for text in texts]]

    @torch.no_grad()
    def embed_tokens(
        self, tokens: TokenArray, advance: Advance | None = None, budget: int | None = None
    ) -> FloatArray:
        """Encode texts whose tokens are known into unit vectors, float32 [texts, dim], in the order given.

        Args:
            tokens: of each text, prompt included.
            advance: called with the number of texts encoded.
            budget: tokens of a forward pass; None takes the device's default.

        """
        vectors = np.empty((len(tokens), self.dim), dtype=np.float32)
        order = np.argsort(tokens.lengths, kind="stable")
        tokens = tokens.select(order)
        flat, offsets = (upload(part, self.device) for part in (tokens.flat, tokens.offsets))
        fill = int(self.tokenizer.pad_token_id or 0)
        ahead = 1 if self.device.type == "cpu" else GPU_AHEAD
        encoded: list[Tensor] = []
        stored = 0
        for start, end in batches(tokens.lengths, budget or self.budget()):
            first, last = int(tokens.offsets[start]), int(tokens.offsets[end])
            width, mask = int(tokens.lengths[end - 1]), None
            if last - first == width * (end - start):
                ids = flat[first:last].view(-1, width).long()
            else:
                ids, mask = pad(flat, offsets[start : end + 1], width, fill)
            encoded.append(self(ids, mask))
            if len(encoded) == ahead or end == len(tokens):
                vectors[order[stored:end]] = torch.cat(encoded).cpu().numpy()
                if advance is not None:
                    advance(end - stored)
                encoded, stored = [], end
        return vectors


class CompiledTextEncoder(FrozenTextEncoder):
    """A frozen text encoder computed by PyTorch; shares the weights that it does not pack."""

    def __init__(self, encoder: TextEncoder, precision: Precision) -> None:
        """Prepare an encoder on its device.

        Args:
            encoder: not modified; must not be trained while this one is in use.
            precision: bf16 or fp32.

        """
        device = next(encoder.parameters()).device
        dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float32
        backbone = encoder.backbone
        held = itertools.chain(backbone.parameters(), backbone.buffers())
        # Only the modules are copied, not their tensors.
        backbone = copy.deepcopy(backbone, {id(tensor): tensor for tensor in held})
        adapted = hasattr(backbone, "peft_config")  # adapters read the weights that they are added to
        _freeze(backbone, dtype, can_pack(device, dtype) and not adapted)
        super().__init__(backbone, encoder.tokenizer, encoder.pooling, encoder.prompts, encoder.max_tokens)
        self.device = device
        self.eval()
