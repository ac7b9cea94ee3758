"""Stage one, stage two and how they are fitted: checkpoints, processes, launch, curves, trackers.

Public: `curves`, `fit_towers`, `fitting`, `launch`, `processes`, `progress`, `tracking`, `train`,
`warm`, `warm_text`.
"""
