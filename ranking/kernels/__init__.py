"""Compiled and vectorised primitives without any knowledge of recommendation.

Public: `dense_scores`, `growable`, `popularity_order`, `streaming_topk`, `topk`.
"""
