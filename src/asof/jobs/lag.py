"""How far behind the end of its partitions a reader is, in messages and in seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from asof.sources.kafka import Partition

if TYPE_CHECKING:
    from asof.telemetry.metrics import Metrics


class Lag:
    """The lag of each partition, as metrics.

    A partition that has messages to read has waited since its newest stored message was written, or since it was last seen to have none
    to read: the later of the two. So a first message after a quiet night is no lag of a night.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._since: dict[Partition, float] = {}
        self._shown: set[Partition] = set()

    def waits(self, partition: Partition, since: float) -> None:
        """A message waits that was written then (Unix time); what is known better stands."""
        self._since.setdefault(partition, since)

    def stored(self, partition: Partition, written: float) -> None:
        """The newest stored message was written then."""
        self._since[partition] = max(written, self._since.get(partition, 0.0))

    def show(self, positions: Mapping[Partition, int], ends: Mapping[Partition, int]) -> None:
        """Partitions that were read up to `positions` and end at `ends`."""
        now = time.time()
        self._forget(self._shown - ends.keys())
        for partition, end in ends.items():
            behind = max(0, end - positions[partition])
            if not behind:
                self._since[partition] = now
            labels = partition.topic, str(partition.number)
            self._metrics.lag_messages.labels(*labels).set(behind)
            self._metrics.lag_seconds.labels(*labels).set(max(0.0, now - self._since.get(partition, now)))
        self._shown = set(ends)

    def _forget(self, partitions: Iterable[Partition]) -> None:
        """Partitions that are another reader's now."""
        for partition in partitions:
            self._since.pop(partition, None)
            self._metrics.lag_messages.remove(partition.topic, str(partition.number))
            self._metrics.lag_seconds.remove(partition.topic, str(partition.number))
