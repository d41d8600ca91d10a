"""The feature sets that ship with asof, by version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from asof.features.feature_set import FeatureSet
from asof.features.library import alpha, book_v1, cross_v1, fs_v2, ta_v1
from asof.features.library.fs_v1 import fs_v1


class Shipped(Mapping[str, FeatureSet]):
    """Feature sets by version, each built when it is first asked for: hundreds of features would slow down every `import asof`."""

    def __init__(self, builders: Mapping[str, Callable[[], FeatureSet]]) -> None:
        self._builders = builders
        self._built: dict[str, FeatureSet] = {}

    def __getitem__(self, version: str) -> FeatureSet:
        if version not in self._built:
            self._built[version] = self._builders[version]()
        return self._built[version]

    def __iter__(self) -> Iterator[str]:
        return iter(self._builders)

    def __len__(self) -> int:
        return len(self._builders)

    def __contains__(self, version: object) -> bool:
        return version in self._builders


SHIPPED = Shipped(
    {
        "fs_v1": lambda: fs_v1,
        "fs_v2": fs_v2.build,
        "ta_v1": ta_v1.build,
        "alpha158": alpha.build_alpha158,
        "alpha360": alpha.build_alpha360,
        "cross_v1": cross_v1.build,
        "book_v1": book_v1.build,
    }
)
"""Every shipped set in its default form."""
