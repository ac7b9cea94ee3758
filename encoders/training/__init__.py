"""Stage one, stage two and what fits them: checkpoints, processes, launch.

Public: `fitting`, `launch`, `progress`, `train`.
"""
