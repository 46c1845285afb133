"""An OpenTelemetry collector for metrics over HTTP. It records the metrics and their DAGs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from pytest_httpserver import HTTPServer
from werkzeug import Response

if TYPE_CHECKING:
    from werkzeug import Request

_CONTENT_TYPE = "application/x-protobuf"


class OtlpReceiver:
    """A collector on 127.0.0.1.

    Attributes:
        arrived: Name of a metric → DAGs in its tags.
    """

    def __init__(self) -> None:
        """Listen on a free port."""
        self.arrived: dict[str, set[str]] = {}
        self._server = HTTPServer(threaded=True)
        self._server.expect_request("/v1/metrics").respond_with_handler(self._receive)
        self._server.start()

    def environment(self) -> dict[str, str]:
        """Return the variables that make the programs of a stack send their metrics here."""
        return {
            "AIRFLOW__METRICS__OTEL_ON": "True",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._server.url_for("").rstrip("/"),
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }

    def close(self) -> None:
        """Stop listening."""
        self._server.stop()

    def _receive(self, request: Request) -> Response:
        for resource in ExportMetricsServiceRequest.FromString(request.data).resource_metrics:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                points = getattr(metric, metric.WhichOneof("data")).data_points
                tags = [tag for point in points for tag in point.attributes if tag.key == "dag_id"]
                self.arrived.setdefault(metric.name, set()).update(tag.value.string_value for tag in tags)
        return Response(ExportMetricsServiceResponse().SerializeToString(), content_type=_CONTENT_TYPE)
