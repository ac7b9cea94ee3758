"""OpenTelemetry traces: one span per call and one per stage, created at the end of the call.

The call's record has all times, so tracing costs nothing during a call, and calls that are not sampled create
no spans.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from conf.serving import TracingConfig
from serving.core.call_context import CallRecord

CARRIER: Final = ("traceparent", "tracestate")
"""Metadata with a caller's trace context (https://www.w3.org/TR/trace-context/)."""
_EXPORT_SECONDS: Final = 2
"""Export timeout, after which spans are dropped."""
_SERVER_FAULTS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Statuses that mark a server span as an error, by OpenTelemetry's conventions for gRPC."""


def make_tracing(config: TracingConfig, service: str) -> Tracing | None:
    """Return the exporter of traces; None without an endpoint."""
    return Tracing(config, service) if config.endpoint else None


class Tracing:
    """Exports the traces of a server process."""

    def __init__(self, config: TracingConfig, service: str) -> None:
        """Connect to `config.endpoint`, which must be set."""
        # Imported here: it takes a while, which a server without traces saves.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=config.endpoint, timeout=_EXPORT_SECONDS)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(config.sample_ratio)),
            resource=Resource.create({"service.name": "shelfwise"}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("shelfwise")
        self._propagator = TraceContextTextMapPropagator()
        self._service = service

    def call(self, record: CallRecord) -> str:
        """Export a finished call; return its trace id, empty where it is not sampled."""

        def wall(moment: float) -> int:
            return record.began_ns + int((moment - record.began) * 1e9)

        span = self._tracer.start_span(
            f"{self._service}/{record.method}",
            context=self._propagator.extract(record.carrier),
            kind=SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": self._service,
                "rpc.method": record.method,
                "rpc.grpc.status_code": record.code,
                "shelfwise.request_id": record.request_id,
                **{f"shelfwise.{name}": value for name, value in record.notes.items()},
            },
            start_time=wall(record.began),
        )
        if not span.is_recording():
            return ""
        inside = set_span_in_context(span)
        for name, began, ended in record.stages:
            self._tracer.start_span(name, context=inside, start_time=wall(began)).end(wall(ended))
        if record.code in _SERVER_FAULTS:
            span.set_status(Status(StatusCode.ERROR))
        span.end(wall(record.ended))
        return f"{span.get_span_context().trace_id:032x}"

    def close(self) -> None:
        """Export the remaining spans, up to the export timeout."""
        self._provider.shutdown()
