"""Whether the kernel may merge pages of a model's process."""

from __future__ import annotations

import subprocess
import sys

import pytest

_GET = 68
"""PR_GET_MEMORY_MERGE."""
SCRIPT = f"""
import ctypes
from serving.model.process.page_merging import merge_equal_pages
asked = lambda: ctypes.CDLL(None).prctl({_GET}, 0, 0, 0, 0)
print(asked(), merge_equal_pages(), asked())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is another one")
def test_a_process_asks_for_it_where_the_kernel_can() -> None:
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    # -1: a kernel before 6.4, or built without it.
    assert found.stdout.split() in (["0", "True", "1"], ["-1", "False", "-1"])


def test_it_does_nothing_on_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.model.process import page_merging

    monkeypatch.setattr(sys, "platform", "darwin")
    assert not page_merging.merge_equal_pages()
