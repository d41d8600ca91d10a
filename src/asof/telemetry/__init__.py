"""What the service tells of itself: metrics, logs and traces."""

from asof.telemetry.metrics import Metrics

__all__ = ["Metrics"]
