"""Ending a compilation as soon as what the plan reads is known.

The TPU compiler has settled every message, every fusion and every byte of memory before it
generates code, and generating code is most of its work: 18 of 19 minutes for DM-GAN at 256 pixels.
It has no option to stop there, but it writes files as it goes, so a child process compiles and is
ended when the file that follows the wanted ones appears.
"""

import dataclasses
import multiprocessing
import os
import re
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import jax

# Seconds between two looks at the folder.
LOOK = 0.2
# The compiler writes these in this order, each in full before the next; code comes after the last.
BUFFERS = "*.after_optimizations-buffer-assignment.txt"
PROGRAM = "*.after_optimizations.txt"
NEXT = "*.after_optimizations_after_buffer_assignment.txt"
# Of memory other than HBM a line names the color; what computations hold for themselves, and
# constants, which are part of the program, are not counted with its arguments and temporaries.
ALLOCATION = re.compile(r"^allocation \d+: size (\d+), (color \d+, )?page \d+, (.*)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Buffers:
    """Bytes of a program on one chip, without its code.

    Attributes:
      arguments: everything that comes in.
      outputs: everything that goes out.
      aliased: of the outputs, what takes the place of an argument.
      temporary: everything between.
    """

    arguments: int
    outputs: int
    aliased: int
    temporary: int

    @property
    def peak(self) -> int:
        """Bytes in all."""
        return self.arguments + self.outputs - self.aliased + self.temporary


def buffers(text: str) -> Buffers:
    """The bytes that a buffer assignment's text gives away; within 64 KiB of the compiler's sum.

    Raises:
      ValueError: where it lists no allocation.
    """
    arguments = outputs = aliased = temporary = 0
    found = ALLOCATION.findall(text)
    if not found:
        raise ValueError("a buffer assignment without a line 'allocation N: size BYTES, page ...'")
    for digits, color, kind in found:
        if color:
            continue
        size, out = int(digits), kind.endswith("maybe-live-out:")
        if kind.startswith("parameter"):
            arguments += size
            aliased += size * out
        outputs += size * out
        temporary += size * ("preallocated-temp" in kind)
    return Buffers(arguments, outputs, aliased, temporary)


class CompilerError(Exception):
    """What the compiler said when it gave up, in a child process."""


def run(folder: Path, work: Callable, *args) -> None:
    """Runs `work` in a new process until it ends or `folder` holds what is wanted.

    A script that calls this must be safe to import (`if __name__ == "__main__":`), as for every
    process that Python spawns.

    Args:
      folder: where the compiler's files go.
      work: a function of a module, which compiles.
      *args: its arguments; they are pickled.

    Raises:
      CompilerError: in the compiler's words.
      RuntimeError: where the process ended otherwise; its traceback is on stderr.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, work, args), daemon=True)
    process.start()
    sender.close()  # so that the end of the child ends the pipe
    try:
        while not any(folder.glob(NEXT)) and not receiver.poll(LOOK):
            pass
        words = receiver.recv() if receiver.poll() else ""
    except EOFError:
        process.join()
        raise RuntimeError(
            f"the process that compiles ended with exit code {process.exitcode}; a negative one is "
            "a signal's, -9 mostly that the machine has too little memory"
        ) from None
    finally:
        process.kill()
        process.join()
    if words:
        raise CompilerError(words)


def _child(sender: Connection, work: Callable, args: tuple) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    jax.config.update("jax_platforms", "cpu")  # accelerators that are here are others' to use
    try:
        work(*args)
        sender.send("")
    except jax.errors.JaxRuntimeError as error:
        sender.send(str(error))


def _end_with_parent() -> None:
    # A parent that is killed ends nobody, and this compilation would go on for nobody.
    multiprocessing.parent_process().join()
    os._exit(1)
