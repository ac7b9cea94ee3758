from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.kernels.compiled import compiled

SOURCE = """
def doubled(values):
    return values * 2.0
"""


@pytest.mark.parametrize("writable", [True, False])
def test_where_machine_code_cannot_be_kept_it_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    source, kept = tmp_path / "loops.py", tmp_path / "__pycache__"
    source.write_text(SOURCE)
    if not writable:  # a file where a folder would have to be
        kept.touch()
        monkeypatch.setenv("HOME", str(kept))
        monkeypatch.setenv("XDG_CACHE_HOME", str(kept))
    names: dict[str, object] = {}
    exec(compile(SOURCE, str(source), "exec"), names)
    doubled = compiled()(names["doubled"])  # type: ignore[type-var]
    assert doubled(np.ones(2)).tolist() == [2.0, 2.0]  # type: ignore[operator]
    assert (len(list(kept.glob("*.nbi"))) == 1) == writable
