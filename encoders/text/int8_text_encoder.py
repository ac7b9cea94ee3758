"""A text encoder exported to OpenVINO with weights and activations in eight bits, for CPUs.

Two to four times as fast as PyTorch in fp32 on processors with instructions for products of bytes (AVX-512
VNNI, AMX, Arm's dot products), as a product of bytes moves a quarter of the data of one in fp32.
"""

from __future__ import annotations

import copy
import io
import logging
import platform
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conf.encoders import Precision
from conf.errors import InputError
from encoders.device import CPU
from encoders.text.compiled_text_encoder import CompiledTextEncoder, FrozenTextEncoder
from encoders.text.precision import serving_precision
from encoders.text.text_encoder import TextEncoder
from encoders.text.tokens import TokenArray

INT8 = "int8"
"""Precision of the vectors of an exported encoder, in the report of a run and the manifest of a bundle."""
FOLDER = "openvino"
"""Folder of the export, inside the text encoder's."""
MODEL = "model.xml"
CALIBRATION = 300
"""Texts from which the ranges of the activations are taken."""
EXTRA = "pip install 'shelfwise[openvino]'"


def _required(package: str, use: str) -> Any:  # noqa: ANN401 - a module
    """Import a package of the extra `openvino`.

    OpenVINO's tools report their use to their maker unless `openvino_telemetry` cannot be imported, which
    both of them accept; a shop's machines report nothing.

    Raises:
        InputError: it is not installed.

    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return __import__(package)
    except ImportError as error:
        raise InputError(f"{use} needs {package}, which is not installed: {EXTRA}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the notices and progress bars of tracing and of calibration."""
    logger = logging.getLogger("nncf")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        # Progress bars are printed whatever the level of the logger.
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


class _Traced(nn.Module):
    """An encoder with ids and mask as its only inputs."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return unit vectors, [texts, dim]."""
        vectors: Tensor = self.encoder(input_ids, attention_mask)
        return vectors


def check_export() -> None:
    """Check that an encoder can be exported, before hours of training.

    Raises:
        InputError: a package is missing.

    """
    for package in ("openvino", "nncf"):
        _required(package, "text_encoder.export=openvino")


def native_int8() -> bool:
    """Return whether the processor has instructions for products of bytes, without which fp32 is as fast.

    PyTorch tells of x86-64 alone; other processors are taken to have them.
    """
    return platform.machine() != "x86_64" or bool(
        torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()
    )


def export_int8(encoder: TextEncoder, tokens: TokenArray, folder: Path, seed: int) -> None:
    """Write an encoder with int8 weights and activations into `folder/openvino`.

    Static quantisation after training: weights have a scale per output, activations one range per tensor,
    measured on sample texts; outliers of activations are moved into the weights before that (SmoothQuant;
    Xiao et al. 2023, arXiv:2211.10438), and biases are corrected for the mean error.

    Args:
        encoder: with its final weights, on any device; not modified.
        tokens: of the catalogue's texts, prompt included; a sample of them calibrates.
        folder: the text encoder's.
        seed: of the sample.

    Raises:
        InputError: a package is missing.

    """
    check_export()
    import nncf
    import openvino

    traced = _Traced(copy.deepcopy(encoder).to(CPU).float().eval())
    ids = torch.ones((2, 8), dtype=torch.int64)
    shape = openvino.PartialShape([-1, -1])  # [texts, tokens]
    drawn = np.random.default_rng(seed).permutation(len(tokens))[:CALIBRATION]
    sample = [tokens.select(np.array([row])).flat.astype(np.int64)[None] for row in np.sort(drawn)]
    with _quiet(), torch.no_grad():
        model = openvino.convert_model(
            traced,
            example_input={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
            input=[(name, shape, openvino.Type.i64) for name in ("input_ids", "attention_mask")],
        )
        model = nncf.quantize(
            model,
            nncf.Dataset([{"input_ids": one, "attention_mask": np.ones_like(one)} for one in sample]),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(sample),
        )
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        openvino.save_model(model, folder / FOLDER / MODEL)


class _Config(nn.Module):
    """The settings of a backbone, in place of its weights."""

    def __init__(self, config: object) -> None:
        super().__init__()
        self.config = config


class Int8TextEncoder(FrozenTextEncoder):
    """An exported text encoder, on as many threads as PyTorch has."""

    def __init__(self, encoder: TextEncoder, folder: Path) -> None:
        """Load the export.

        Args:
            encoder: it gives tokenizer, pooling, prompts and sizes; its weights are not kept.
            folder: of the text encoder.

        Raises:
            InputError: OpenVINO is not installed, or the export cannot be read.

        """
        openvino = _required("openvino", f"{folder}: a text encoder exported to OpenVINO")
        shell: Any = _Config(encoder.backbone.config)
        super().__init__(shell, encoder.tokenizer, encoder.pooling, encoder.prompts, encoder.max_tokens)
        core = openvino.Core()
        # Read, not mapped: a file that is cut off would end the process.
        core.set_property({"ENABLE_MMAP": False})
        settings = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # of what is not quantised
        }
        try:
            self._request = core.compile_model(
                core.read_model(folder / FOLDER / MODEL), "CPU", settings
            ).create_infer_request()
        except RuntimeError as error:
            line = str(error).strip().splitlines()[-1]
            raise InputError(f"{folder / FOLDER / MODEL}: cannot be loaded ({line})") from error
        self._lock = threading.Lock()
        self.device = CPU
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return unit vectors, float32 [texts, dim], for token ids and mask [texts, tokens]."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        inputs = {"input_ids": input_ids.numpy(), "attention_mask": mask.numpy()}
        with self._lock:  # a request holds its outputs
            return torch.from_numpy(self._request.infer(inputs, share_inputs=True)[0].copy())


def frozen_text_encoder(
    encoder: TextEncoder, folder: Path, stored: str, device: torch.device
) -> FrozenTextEncoder:
    """Return a bundle's encoder in the arithmetic that made the vectors of its catalogue, where possible.

    Args:
        encoder: as loaded.
        folder: it was loaded from.
        stored: precision of the bundle's text vectors, from the manifest.
        device: where it runs; an exported one runs on the CPU.

    Raises:
        InputError: it is exported, and OpenVINO is not installed.

    """
    if stored == INT8:
        return Int8TextEncoder(encoder, folder)
    return CompiledTextEncoder(encoder.to(device), serving_precision(stored, device))


def float_precision(stored: str) -> Precision:
    """Return the precision with which PyTorch makes vectors beside stored ones; fp32 beside int8."""
    return Precision.fp32 if stored == INT8 else Precision(stored)
