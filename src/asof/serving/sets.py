"""Feature sets as the registry has them, and how each is made of bars and events."""

from __future__ import annotations

from asof.errors import NotFound, did_you_mean
from asof.features.expression import walk
from asof.features.feature_set import FeatureSet
from asof.features.streams import Window
from asof.serving.principal import Principal
from asof.serving.state import Serving
from asof.stores.store import Registered

Document = dict[str, object]


def listed(serving: Serving, principal: Principal) -> Document:
    """Those that may be read."""
    registry = serving.opened().registered()
    return {"feature_sets": [_shown(registry[version]) for version in sorted(registry) if principal.may_read(version)]}


def shown(serving: Serving, principal: Principal, version: str) -> Document:
    """One, with its features, flags, what it looks at, and its graph. Raises `AccessError`, and `NotFound`."""
    principal.read(version)
    store = serving.opened()
    registry = store.registered()
    if version not in registry:
        known = [name for name in registry if principal.may_read(name)]
        raise NotFound(f"feature set {version[:80]!r} is not registered here{did_you_mean(version, known)}")
    definition = store.definition(version)
    return _shown(registry[version]) | {
        "features": list(definition.features),
        "flags": list(definition.flag_names),
        "lookback": definition.lookback,
        "event_window_seconds": definition.event_window / 1_000_000,
        "graph": graph(definition),
    }


def _shown(one: Registered) -> Document:
    return {"version": one.version, "fingerprint": one.fingerprint, "definition": one.text, "applied_at": one.applied_at.isoformat()}


def graph(definition: FeatureSet) -> Document:
    """Lineage: every expression once, inputs first, with the features and flags that it is; edges go from an input to its user."""
    nodes = list(walk(*definition.roots))
    number = {id(node): place for place, node in enumerate(nodes)}
    names: dict[int, list[str]] = {}
    for group in (definition.features, definition.flags):
        for name, expression in group.items():
            names.setdefault(number[id(expression)], []).append(name)
    shown_nodes = [
        {
            "id": place,
            "operator": node.operator.name if node.operator else None,
            "column": node.name or None,
            "parameters": [str(each) for each in node.params],
            "of": node.domain.stream if isinstance(node.domain, Window) else node.domain,
            "lookback": node.lookback,
            "is": names.get(place, []),
        }
        for place, node in enumerate(nodes)
    ]
    edges = [[number[id(one)], place] for place, node in enumerate(nodes) for one in node.inputs]
    return {"nodes": shown_nodes, "edges": edges}
