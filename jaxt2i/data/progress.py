"""Progress of long work on many files, for a person at a terminal and for a log."""

import sys
import time


class Progress:
    """One line on stderr that is rewritten twice a second; a log gets a line every ten."""

    def __init__(self, what: str, total: int):
        self.what, self.total = what, total
        self.done = self.skipped = 0
        self.start = self.last = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def step(self, skipped: bool) -> None:
        """Counts one file."""
        self.done += 1
        self.skipped += skipped
        if time.monotonic() - self.last > (0.5 if self.terminal else 10):
            self.last = time.monotonic()
            self._print("\r" if self.terminal else "\n")

    def close(self, said: str = "") -> None:
        """Prints the final counts, or what is to be said in their place."""
        if said:
            print(f"{said:<79}" if self.terminal else said, file=sys.stderr, flush=True)
        else:
            self._print("\n")

    def _print(self, end: str) -> None:
        spent = max(time.monotonic() - self.start, 1e-3)
        rate = self.done / spent
        line = f"{self.what}: {self.done}/{self.total}, {self.skipped} skipped, {rate:.0f}/s"
        if 0 < self.done < self.total:
            left = (self.total - self.done) / rate
            line += f", {int(left) // 60}:{int(left) % 60:02d} left"
        # The line that is rewritten may have been longer.
        print(f"{line:<79}" if self.terminal else line, end=end, file=sys.stderr, flush=True)
