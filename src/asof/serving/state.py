"""What handlers answer from: one object for each app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from asof import definitions
from asof.config import Settings
from asof.errors import NotFound, StoreError
from asof.feature_store import FeatureStore
from asof.features.feature_set import FeatureSet
from asof.serving.limits import Limits
from asof.serving.newest import Newest
from asof.telemetry.metrics import Metrics

NOT_OPEN = "the store is not open yet: ask again in a moment; /ready says when it is"
Report = dict[str, object]
Watched = tuple[bool, Report]
"""Whether all is well, and how it is."""


@dataclass
class Serving:
    """What one service serves. `store` is None until it is open, and always for a replica of Kafka, of which `without` tells why."""

    settings: Settings
    metrics: Metrics
    newest: Newest
    health: Callable[[], Watched]
    ready: Callable[[], Watched]
    store: FeatureStore | None = None
    without: str = NOT_OPEN
    limits: Limits = field(init=False)

    def __post_init__(self) -> None:
        self.limits = Limits.of(self.settings)

    def opened(self) -> FeatureStore:
        """The store. Raises `StoreError` where there is none."""
        if self.store is None:
            raise StoreError(self.without)
        return self.store

    def definition(self, version: str) -> FeatureSet:
        """A feature set of the registry, the project or those that are shipped. Raises `NotFound`."""
        if self.store is not None:
            return self.store.definition(version)
        return definitions.find(version, self.settings, {})

    def names(self, version: str) -> list[str] | None:
        """The features of a set; None where no definitions are at hand."""
        if self.store is None:
            return None
        try:
            return list(self.store.definition(version).features)
        except NotFound:
            return None
