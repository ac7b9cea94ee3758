from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import absl.logging
import faiss
import numpy as np
import pytest
import torch
from rich.console import Console

from conf.encoders import Precision, TextEncoderConfig
from conf.schema import PipelineConfig, SplitKind
from encoders.text.embedding import embed_texts
from encoders.text.text_encoder import TextEncoder, load_text_encoder
from encoders.training.train import train_encoder
from features.data.dataset import Dataset, FloatArray
from features.prepare import prepare
from ranking.pipeline.publish import publish
from ranking.training.train import train_ranker
from tests.synthetic import World, make_world, pipeline_config, tiny_bert


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Keep every test and the processes it starts on one core each.

    Small arrays gain nothing from more, sums stay in one order, and threads of OpenMP that wait for each
    other take the cores from other tests.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def stderr_of_absl() -> None:
    """Give absl's log handler the process's own stderr.

    OpenVINO's converter and TensorBoard import absl. Its handler keeps the stderr of that moment, which
    is pytest's capture file, and closes it when Hydra next sets up logging under another stderr; every
    later test then fails. The process's own stderr it never closes.
    """
    absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()


@pytest.fixture(scope="session")
def dataset(world: World) -> Dataset:
    return world.dataset()


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """Folder of a tiny random BERT that knows the words of the synthetic shop."""
    return tiny_bert(tmp_path_factory.mktemp("bert"), dataset.catalogue.texts)


@pytest.fixture
def encoder(bert: Path) -> TextEncoder:
    """A fresh copy of the tiny encoder, ready to score."""
    return load_text_encoder(TextEncoderConfig(model=str(bert), max_tokens=24)).eval()


@pytest.fixture(scope="session")
def text_vectors(bert: Path, dataset: Dataset) -> FloatArray:
    """Text vectors of the synthetic shop, [items, 32]; not to be written to."""
    encoder = load_text_encoder(TextEncoderConfig(model=str(bert), max_tokens=24)).eval()
    vectors = embed_texts(encoder, dataset.catalogue.texts, precision=Precision.fp32)
    assert np.isfinite(vectors).all()
    return vectors


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, world: World, bert: Path) -> PipelineConfig:
    """Configuration of a finished run on the synthetic shop, up to a published bundle; not to be changed."""
    config = pipeline_config(world, bert, tmp_path_factory.mktemp("trained"), SplitKind.global_time)
    for step in (prepare, train_encoder, train_ranker, publish):
        step(config, Console(quiet=True))
    return config


_STATUS: list[int] = []


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember how it went."""
    _STATUS.append(int(exitstatus))


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure() -> None:
    """End the process once everything has been reported, without taking the interpreter apart.

    Hundreds of servers have come and gone in one process by then, and grpc.aio dies now and then when their
    remains are collected outside their event loop. A server has a process of its own, whose end is tested.
    """
    if _STATUS:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_STATUS[-1])
