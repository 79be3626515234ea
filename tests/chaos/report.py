"""What an attack found, and the limits its victims live in."""

from __future__ import annotations

import resource
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Report:
    """The counts of an attack, and a sentence for everything that did not hold."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def show(self) -> None:
        found = ", ".join(f"{number} {what}" for what, number in self.counts.items())
        print(f"{self.name}: {found}; {len(self.faults)} faults", flush=True)
        for fault in self.faults:
            print(f"  {fault}", flush=True)


def virtual_bytes() -> int:
    """Addresses that this process uses, memory that is only reserved included."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def live_within(seconds: int, more_bytes: int) -> None:
    """Ends this process after so much computing, and denies it more memory than it has now."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    most = virtual_bytes() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def one_sentence(said: str) -> str | None:
    """What is wrong with the last words of a command that was refused; None = nothing."""
    lines = said.splitlines()
    if "Traceback" in said:
        return f"a traceback: {lines[-1][:200]}"
    if not lines or not lines[-1].startswith("foundry3d: error: "):
        return f"no sentence but {lines[-1:]}"
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for line in lines for c in line):
        return "control characters"
    return None
