"""The prepared dataset: schema, splits, histories, statistics and demand.

Public: `arrays`, `content_hash`, `dataset`, `demand`, `event_arrays`, `histories`, `pipeline_step`,
`prefixes`, `schema`, `splits`, `statistics`, `training_windows`.
"""
