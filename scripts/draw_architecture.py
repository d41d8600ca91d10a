"""Draw the picture of docs/architecture.md: what runs, and what flows between.

`python scripts/draw_architecture.py` writes `docs/images/architecture.svg`; with `--check` it writes nothing and exits with 1 where the
file is not what this says. It has its own ground under it and takes the reader's light or dark, and the fonts of the reader's machine.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "docs" / "images" / "architecture.svg"
WIDTH, HEIGHT = 1080, 560
STYLE = """
.ground { fill: #ffffff; stroke: #d0d7de } .box { fill: #f3f5f8; stroke: #8a94a3 } .ours { fill: #e3effd; stroke: #2f6fb7 }
.part { fill: #ffffff; stroke: #8a94a3 } .name { fill: #16202c; font-weight: 600 } .says, .label { fill: #465364 }
.line { fill: none; stroke: #55627a; stroke-width: 1.5 } .tip { fill: #55627a } .halo { stroke: #ffffff }
@media (prefers-color-scheme: dark) {
.ground { fill: #171b22; stroke: #323a46 } .box { fill: #222832; stroke: #6d7888 } .ours { fill: #17304f; stroke: #6aa5ea }
.part { fill: #171b22; stroke: #6d7888 } .name { fill: #eef2f7 } .says, .label { fill: #b3bdca }
.line { stroke: #94a1b3 } .tip { fill: #94a1b3 } .halo { stroke: #171b22 }
}
text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif } .says, .label { font-size: 12px }
.label { paint-order: stroke; stroke-width: 5px; stroke-linejoin: round }
"""


@dataclass(frozen=True)
class Box:
    """Something that runs or keeps, with what it says of itself, and the parts that stand inside of it."""

    x: int
    y: int
    width: int
    height: int
    name: str
    says: str = ""
    kind: str = "box"

    def draw(self) -> str:
        """The box and its words."""
        middle, first = self.x + self.width / 2, self.y + 22
        shape = f'<rect class="{self.kind}" x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="7"/>'
        texts = [f'<text class="name" x="{middle:g}" y="{first}" text-anchor="middle">{escape(self.name)}</text>']
        for k, line in enumerate(filter(None, self.says.split("\n")), 1):
            texts.append(f'<text class="says" x="{middle:g}" y="{first + 17 * k}" text-anchor="middle">{escape(line)}</text>')
        return "\n".join([shape, *texts])


@dataclass(frozen=True)
class Arrow:
    """A flow along some points, and what flows, written at a place."""

    points: tuple[tuple[int, int], ...]
    label: str = ""
    at: tuple[int, int] = (0, 0)

    def draw(self) -> str:
        """The line."""
        path = " ".join(f"{'ML'[k > 0]}{x} {y}" for k, (x, y) in enumerate(self.points))
        return f'<path class="line" d="{path}" marker-end="url(#tip)"/>'

    def text(self) -> str:
        """The label, which is drawn over all lines."""
        lines = self.label.split("\n") if self.label else []
        x, y = self.at
        return "\n".join(
            f'<text class="label halo" x="{x}" y="{y + 15 * k}" text-anchor="middle">{escape(line)}</text>' for k, line in enumerate(lines)
        )


BOXES = (
    Box(30, 40, 170, 62, "market ingestor", "another program"),
    Box(30, 232, 170, 62, "news enrichment", "another program"),
    Box(290, 164, 180, 202, "Kafka (Redpanda)"),
    Box(302, 232, 156, 52, "events.enriched.v1", "6 partitions", "part"),
    Box(302, 302, 156, 52, "features.dlq.v1", "dead letters", "part"),
    Box(570, 110, 180, 256, "asof run", "", "ours"),
    Box(582, 146, 156, 68, "compute", "every cycle what\nhas changed", "part"),
    Box(582, 232, 156, 52, "consume", "checks, batches", "part"),
    Box(582, 302, 156, 52, "/health, /metrics", "port 8006", "part"),
    Box(870, 30, 180, 336, "TimescaleDB", "PostgreSQL"),
    Box(882, 88, 156, 52, "ohlcv", "bars, and their past", "part"),
    Box(882, 154, 156, 68, "feature_vectors", "and their past;\nfs_v1 is a view", "part"),
    Box(882, 236, 156, 52, "events", "and their past", "part"),
    Box(882, 302, 156, 52, "positions, changes", "how far readers are", "part"),
    Box(570, 448, 180, 72, "Prometheus", "every 10 s;\nrules and alerts"),
    Box(290, 448, 180, 72, "Grafana", "Feature Store Health"),
    Box(870, 448, 180, 72, "who reads", "SQL, asof get,\nasof join"),
)
ARROWS = (
    Arrow(((200, 71), (840, 71), (840, 103), (880, 103)), "upserts bars", (495, 64)),
    Arrow(((200, 258), (300, 258)), "publishes", (245, 251)),
    Arrow(((458, 250), (580, 250)), "reads", (520, 243)),
    Arrow(((582, 272), (520, 272), (520, 328), (460, 328)), "what cannot\nbe used", (520, 346)),
    Arrow(((882, 127), (810, 127), (810, 164), (740, 164)), "changes", (782, 157)),
    Arrow(((738, 194), (880, 194)), "upserts", (808, 187)),
    Arrow(((738, 258), (880, 258)), "in one transaction", (808, 251)),
    Arrow(((738, 270), (810, 270), (810, 328), (880, 328))),
    Arrow(((660, 448), (660, 356)), "reads", (690, 412)),
    Arrow(((470, 484), (568, 484)), "asks", (519, 477)),
    Arrow(((960, 366), (960, 446)), "vectors as of a time", (960, 412)),
)
"""Boxes before the parts inside of them."""


def picture() -> str:
    """The picture as SVG."""
    shapes = "\n".join([*(arrow.draw() for arrow in ARROWS), *(arrow.text() for arrow in ARROWS)])
    boxes = "\n".join(box.draw() for box in BOXES)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title">
<title id="title">asof between Kafka and TimescaleDB, watched by Prometheus and Grafana</title>
<style>{STYLE}</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto-start-reverse">
<path class="tip" d="M0 0 L8 4 L0 8 Z"/></marker></defs>
<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10"/>
{boxes}
{shapes}
</svg>
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the file is stale")
    if parser.parse_args().check:
        fresh = FILE.exists() and FILE.read_text(encoding="utf-8") == picture()
        print("the picture is what the script says" if fresh else f"{FILE.name} is stale: run python scripts/draw_architecture.py")
        return 0 if fresh else 1
    FILE.write_text(picture(), encoding="utf-8")
    print(f"wrote docs/images/{FILE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
