"""Logs, Prometheus metrics and OpenTelemetry traces.

Public: `logs`, `metrics`, `tracing`.
"""
