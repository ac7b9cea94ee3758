"""Stage one, stage two and how they are fitted: checkpoints, processes, launch.

Public: `fitting`, `launch`, `progress`, `train`.
"""
