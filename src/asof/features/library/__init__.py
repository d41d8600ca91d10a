"""The feature sets that ship with asof, by version."""

from asof.features.library.fs_v1 import fs_v1

SHIPPED = {fs_v1.version: fs_v1}
"""Every shipped set in its default form."""
