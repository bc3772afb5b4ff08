"""Origin, proxy and clients of a test."""

import threading
import time
from pathlib import Path

# Seconds; the longest wait for anything that must happen. Far above what a busy machine needs, so that
# only a fault reaches it.
PATIENCE = 30

ROOT = Path(__file__).parents[3]


def eventually(what, holds):
    """Waits until `holds` answers something true, which nothing announces, and returns it."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := holds()):
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.01)
    return answer


def happens(what, event: threading.Event):
    assert event.wait(PATIENCE), f"{what}: not within {PATIENCE} s"


def pattern(length):
    """`length` bytes that repeat at no power of two, so that a lost or doubled block shows."""
    return (bytes(range(251)) * (length // 251 + 1))[:length]
