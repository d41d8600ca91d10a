"""Features as files that LEAN reads as custom data; the reader is in the documentation. Takes the folder, LEAN's `Data/custom/asof`."""

from __future__ import annotations

import sys
from pathlib import Path

from sample_store import sample_store

from asof.bridges import lean


def main(folder: str) -> None:
    """Write the files and print the first lines of one."""
    with sample_store() as store:
        files = lean.write(store, ["fs_v1:ret_1", "fs_v1:vol_20"], "1d", folder, "2024-03-01", "2024-12-31", known_at=None)
    print(f"{len(files)} files, {files[0].relative_to(Path(folder))} among them:")
    print("\n".join(files[0].read_text().splitlines()[:4]))


if __name__ == "__main__":
    main(sys.argv[1])
