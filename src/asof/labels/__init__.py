"""Labels for training: what is to be foretold, kept apart from features by type, and splits that do not let one tell of the other."""

from asof.features.label import Label
from asof.features.label_set import Ahead, Barriers, LabelSet, ahead, direction, forward_return, triple_barrier
from asof.jobs.labelling import compute
from asof.labels.splits import CombinatorialPurged, PurgedKFold, WalkForward

__all__ = [
    "Ahead",
    "Barriers",
    "CombinatorialPurged",
    "Label",
    "LabelSet",
    "PurgedKFold",
    "WalkForward",
    "ahead",
    "compute",
    "direction",
    "forward_return",
    "triple_barrier",
]
