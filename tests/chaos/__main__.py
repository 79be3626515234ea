"""`make chaos`: every attack, some minutes; the status is 1 if anything did not hold."""

import argparse
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Runs the attacks that are named, or all of them, and shows what each found."""
    from chaos import configurations, kills, mutations, read_only

    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("attacks", nargs="*", help="kills files options read-only; none = all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=4, help="killed runs of every command")
    parser.add_argument("--files", type=int, default=300, help="damaged files of every format")
    given = parser.parse_args()
    attacks = {
        "files": lambda folder: mutations.attack(folder, count=given.files, seed=given.seed),
        "options": configurations.attack,
        "read-only": lambda folder: read_only.attack(),
        "kills": lambda folder: kills.attack(folder, rounds=given.rounds, seed=given.seed),
    }
    faults = 0
    for name in given.attacks or attacks:
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            began = time.monotonic()
            report = attacks[name](Path(folder))
            report.show()
            print(f"  seed {given.seed}, {time.monotonic() - began:.0f} s", flush=True)
            faults += len(report.faults)
    sys.exit(min(faults, 1))


if __name__ == "__main__":
    main()
