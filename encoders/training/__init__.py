"""Stage one, stage two and how they are fitted: checkpoints, processes, launch, curves, trackers.

Public: `curves`, `fitting`, `launch`, `progress`, `tracking`, `train`.
"""
