"""A minimal published model, and the request that loads it."""

from __future__ import annotations

from pathlib import Path

from conf.encoders import TextEncoderConfig
from conf.serving import LogFormat
from encoders.text.text_encoder import load_text_encoder
from features.data.dataset import Dataset
from ranking.bundle.store import current_version
from serving.model.process.worker import LoadRequest
from tests.bundles import make_bundle, publish_bundle

ROOM = 50


def publish_model(folder: Path, dataset: Dataset, bert: Path) -> Path:
    encoder = load_text_encoder(TextEncoderConfig(model=str(bert), max_tokens=24)).eval()
    publish_bundle(folder, make_bundle(dataset, encoder), bert)
    return folder


def start_message(store: Path, timeout_seconds: float = 30.0) -> LoadRequest:
    return LoadRequest(
        str(store), current_version(store), None, ROOM, 1, 2, False, "cpu", timeout_seconds, LogFormat.text,
        log_requests=False,
    )  # fmt: skip
