from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "images" / "architecture.svg"


def test_the_picture_of_the_architecture_is_what_its_script_draws():
    done = subprocess.run(
        [sys.executable, "scripts/draw_architecture.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_well_formed_loads_nothing_and_has_both_lights():
    text = PICTURE.read_text()
    ET.fromstring(text)  # noqa: S314 # our own
    assert not re.search(r"https?://(?!www\.w3\.org)|@import|url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text
    assert "<title" in text
