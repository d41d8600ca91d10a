"""The feature sets that ship with asof, by version."""

from asof.features.library.alpha import alpha158, alpha360
from asof.features.library.fs_v1 import fs_v1
from asof.features.library.ta_v1 import ta_v1

SHIPPED = {feature_set.version: feature_set for feature_set in (fs_v1, ta_v1, alpha158, alpha360)}
"""Every shipped set in its default form."""
