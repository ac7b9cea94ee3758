"""Logs, Prometheus metrics, OpenTelemetry traces, and health with its HTTP probes.

Public: `health`, `http`, `logs`, `metrics`, `tracing`.
"""
