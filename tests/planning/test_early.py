"""Stopping a compiler early: its files as libtpu writes them, and the child that is ended."""

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import psutil
import pytest

from jaxt2i.planning import early

ROOT = Path(__file__).parents[2]

# Lines of a real assignment; values, which nothing reads, are left out but for one.
ASSIGNMENT = """BufferAssignment:
allocation 0: size 512, page 0, thread-local:
allocation 1: size 73728, page 0, parameter 26, shape |f32[9]| at ShapeIndex {}, maybe-live-out:
 value: <13036 param.30 @0> (size=73728,offset=0): f32[3,3,16,16]{3,2,1,0:T(8,128)}
allocation 2: size 2048, page 0, parameter 7, shape |s32[4,32]| at ShapeIndex {}:
allocation 3: size 4096, page 0, constant:
allocation 4: size 2560, page 0, maybe-live-out:
allocation 5: size 1024, page 0, output shape is |(f32[3,3,16,16], f32[])|, maybe-live-out:
allocation 6: size 10994176, page 0, preallocated-temp:
allocation 7: size 5861888, color 1, page 0, preallocated-temp:
"""


def test_an_assignment_gives_away_every_byte_of_hbm():
    found = early.buffers(ASSIGNMENT)
    assert found == early.Buffers(73728 + 2048, 73728 + 2560 + 1024, 73728, 10994176)
    assert found.peak == 73728 + 2048 + 2560 + 1024 + 10994176
    with pytest.raises(ValueError, match="without a line 'allocation N"):
        early.buffers("BufferAssignment:\n")


def compiles_for_hours(folder):
    (folder / "module_0000.jit_program.after_optimizations.txt").touch()
    (folder / "module_0000.jit_program.after_optimizations_after_buffer_assignment.txt").touch()
    time.sleep(3600)


def gives_up(folder):
    raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: in {folder.name}")


def dies(folder):
    os._exit(9)


def test_the_child_ends_when_its_files_are_there_and_its_errors_arrive(tmp_path):
    started = time.monotonic()
    early.run(tmp_path, compiles_for_hours, tmp_path)
    assert time.monotonic() - started < 600
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(early.CompilerError, match="RESOURCE_EXHAUSTED: in empty"):
        early.run(empty, gives_up, empty)
    with pytest.raises(RuntimeError, match="exit code 9"):
        early.run(empty, dies, empty)


def waits(file):
    file.write_text(str(os.getpid()))
    time.sleep(3600)


def test_the_child_ends_with_a_parent_that_is_killed(tmp_path):
    code = (
        "import sys, pathlib; from tests.planning import test_early as t\n"
        "if __name__ == '__main__': t.early.run(pathlib.Path(sys.argv[1]), t.waits, "
        "pathlib.Path(sys.argv[1]) / 'pid')"
    )
    file, script = tmp_path / "pid", tmp_path / "script.py"
    script.write_text(code)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, script, tmp_path], env=env)
    while not (file.exists() and file.read_text()):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    child = psutil.Process(int(file.read_text()))
    child.wait(60)
