"""`python3 run.py bench [race | matrix | overhead | …] [options]`; the race when nothing is named."""

from __future__ import annotations

import sys

from benchmarks import matrix, memory, overhead, prediction, profile, race, search, staleness, truesize, tuning


def main(arguments: list[str]) -> int:
    """Start the benchmark that is named first."""
    known = {
        "race": race.main,
        "matrix": matrix.main,
        "overhead": overhead.main,
        "memory": memory.main,
        "truesize": truesize.main,
        "profile": profile.main,
        "prediction": prediction.main,
        "search": search.main,
        "staleness": staleness.main,
        "tuning": tuning.main,
    }
    if arguments and arguments[0] in known:
        return known[arguments[0]](arguments[1:])
    return race.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
