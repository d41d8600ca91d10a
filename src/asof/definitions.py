"""Where feature sets come from: the shipped library, the project's own Python file, and the registry."""

from __future__ import annotations

import importlib.util
import sys
from collections import ChainMap
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import ModuleType

from asof.config import Settings
from asof.errors import DefinitionError, NotFound, VersionConflict, did_you_mean
from asof.features.feature_set import FeatureSet
from asof.features.library import SHIPPED
from asof.features.library.fs_v1 import build
from asof.stores.store import Registered, Store


def defined(settings: Settings) -> dict[str, FeatureSet]:
    """The feature sets that this project has, by version: `fs_v1` with its event window, and those of its file."""
    sets = {"fs_v1": build(f"{settings.event_window_minutes}m", settings.min_event_count)}
    if settings.features:
        for feature_set in from_file(settings.features):
            if feature_set == SHIPPED.get(feature_set.version):
                continue  # only imported there, to build on
            if feature_set.version in SHIPPED and feature_set != sets.get(feature_set.version):
                raise DefinitionError(
                    f"{settings.features} redefines {feature_set.version}, which ships with asof; give it a version of its own"
                )
            sets[feature_set.version] = feature_set
    return sets


def available(settings: Settings) -> Mapping[str, FeatureSet]:
    """The feature sets that can be asked for by their version: the project's, and all that ship with asof."""
    return ChainMap(defined(settings), SHIPPED)  # type: ignore[arg-type]  # it writes to the first alone, and nobody writes


def from_file(path: Path) -> list[FeatureSet]:
    """The feature sets that a Python file defines at its top level."""
    if not path.is_file():
        raise DefinitionError(f"{path}, named as the features file, does not exist; make it, or mend `features` in asof.toml")
    found = {id(v): v for v in vars(load(path)).values() if isinstance(v, FeatureSet)}
    versions = [s.version for s in found.values()]
    for version in versions:
        if versions.count(version) > 1:
            raise DefinitionError(f"{path} defines {version} twice")
    return list(found.values())


def load(path: Path) -> ModuleType:
    """A Python file as a module. It is the project's own code, and is run. Raises `DefinitionError` where it cannot be."""
    if not path.is_file():
        raise DefinitionError(f"{path} does not exist; name a Python file")
    spec = importlib.util.spec_from_file_location(f"asof_project_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise DefinitionError(f"{path} line {error.lineno}: {error.msg}") from None
    except (ImportError, NameError, AttributeError, TypeError, ValueError) as error:
        raise DefinitionError(f"{path}: {type(error).__name__}: {error}") from error
    finally:
        sys.dont_write_bytecode = before
    return module


def held(path: Path, name: str) -> object:
    """What a Python file calls `name`. Raises `NotFound` where there is no such thing."""
    there = vars(load(path))
    if name not in there:
        known = [word for word in there if not word.startswith("_")]
        raise NotFound(f"{path} has no {name!r}{did_you_mean(name, known)}; it has {', '.join(known) or 'nothing'}")
    return there[name]


def find(version: str, settings: Settings, registry: dict[str, Registered]) -> FeatureSet:
    """The feature set of a version: as defined, held to what is registered; or rebuilt from the registry alone.

    Raises `VersionConflict` with the difference where the definition has changed, `NotFound` where there is none.
    """
    sets = available(settings)
    if version in sets:
        check(sets[version], registry)
        return sets[version]
    if version in registry:
        return FeatureSet.parse(registry[version].text)
    known = sorted({*sets, *registry})
    raise NotFound(f"no feature set {version!r}; there are {', '.join(known)}{did_you_mean(version, known)}")


def check(feature_set: FeatureSet, registry: dict[str, Registered]) -> None:
    """Refuse a definition that differs from what is registered under its version."""
    there = registry.get(feature_set.version)
    if there and there.fingerprint != feature_set.fingerprint:
        difference = feature_set.difference(there.text) or "the meaning of an operator has changed since it was registered"
        raise VersionConflict(
            f"{feature_set.version} is registered with another definition, and a version never changes:\n{difference}\n"
            "Give the new definition a new version, or restore the old one"
        )


def register(store: Store, feature_set: FeatureSet, now: datetime) -> bool:
    """Register a feature set that is not there yet; whether it was new."""
    registry = store.registered()
    check(feature_set, registry)
    if feature_set.version in registry:
        return False
    store.register(feature_set, now)
    return True
