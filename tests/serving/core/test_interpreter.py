"""Settings of the Python interpreter."""

from __future__ import annotations

import gc
import sys

from serving.core.interpreter import tune_interpreter


def test_new_objects_are_collected_in_larger_lots_and_threads_switch_sooner() -> None:
    before, switch = gc.get_threshold(), sys.getswitchinterval()
    try:
        tune_interpreter()
        assert gc.get_threshold() == (10_000, *before[1:])
        assert sys.getswitchinterval() == 0.0005
    finally:
        gc.set_threshold(*before)
        sys.setswitchinterval(switch)
