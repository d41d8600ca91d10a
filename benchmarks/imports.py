"""What `import asof` adds to the start of the interpreter: medians of ten fresh processes each."""

from __future__ import annotations

from measure import Candidate, Figure, Result, Settings, python, take_turns

TARGET = 0.3
PROCESSES = 10


def run(settings: Settings) -> Result:
    """Measure it; the data's scale does not matter here."""
    python("import asof")  # writes the byte code
    candidates = {"bare": Candidate(lambda: python("pass")), "asof": Candidate(lambda: python("import asof"))}
    seconds = take_turns(candidates, PROCESSES)
    added = seconds["asof"] - seconds["bare"]
    return Result(
        "import asof",
        [
            Figure("import asof", added, note="less the bare interpreter"),
            Figure("the bare interpreter", seconds["bare"], note="start to end"),
        ],
        f"less than {TARGET} s",
        f"{added:.3f} s",
        added < TARGET,
    )
