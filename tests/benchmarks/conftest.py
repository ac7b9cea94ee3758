from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def quick_settings(bert: Path) -> list[str]:
    """Overrides of a training that takes seconds, but for the data."""
    return [
        "data.text_fields=[title]", f"text_encoder.model={bert}", "text_encoder.mode=frozen",
        "text_encoder.max_tokens=16", "text_encoder.precision=fp32", "user_encoder.dim=16",
        "user_encoder.epochs=2", "user_encoder.max_length=10", "user_encoder.batch_size=16",
        "user_encoder.min_windows_per_epoch=0", "ranker.epochs=2", "threads=1", "evaluation.bootstrap=20",
    ]  # fmt: skip
