"""What the system refuses is told in one line: full disks, read-only places, encodings."""

import errno
import logging
import sys
from types import SimpleNamespace

import pytest

from jaxt2i import train as command
from jaxt2i.config import ConfigError
from jaxt2i.run import checkpoint, settings, train, training, trouble
from tests.engine import toy_config


def test_a_full_disk_is_told_with_its_path_and_room(tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "deep" / "x"))
    said = trouble.said(error)
    assert said.startswith(f"{tmp_path}/deep/x: no space left on the device (")
    assert "MiB free" in said


def test_a_cause_is_found_however_deep(tmp_path):
    outer = RuntimeError("the save failed")
    outer.__cause__ = ValueError("RESOURCE_EXHAUSTED: Failed writing: No space left on device")
    assert trouble.full_or_closed(outer)
    assert trouble.said(outer, tmp_path).startswith(f"{tmp_path}: no space left")
    assert not trouble.full_or_closed(RuntimeError("another"))
    group = ExceptionGroup("two", [KeyError("a"), OSError(errno.EROFS, "Read-only", "/x")])
    assert trouble.full_or_closed(group)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/x/run"), "/x/run: a read-only file"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied"),
        (FileNotFoundError("a sentence of ours"), "a sentence of ours"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "not readable as UTF-8"),
        (trouble.Unwritable("whole already"), "whole already"),
        (KeyError("k"), "'k'"),
    ],
)
def test_each_error_is_one_line(error, said):
    line = str(trouble.line(error))
    assert line.startswith(said)
    assert "\n" not in line


def test_threads_that_meet_a_full_disk_say_nothing_more(capsys):
    log, before = logging.getLogger("absl"), sys.unraisablehook
    told = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    log.addHandler(handler)
    try:
        with trouble.told_once():
            for error in (OSError(errno.ENOSPC, "No space left on device"), KeyError("k")):
                try:
                    raise error
                except (OSError, KeyError):
                    log.exception("of %s", type(error).__name__)
    finally:
        log.removeHandler(handler)
    assert told == ["of KeyError"]
    assert sys.unraisablehook is before


def test_a_run_on_a_full_disk_keeps_its_earlier_checkpoint(tmp_path, monkeypatch):
    config = toy_config.get_config()
    config.total_steps, config.checkpoint_every_steps = 2, 1
    save = checkpoint.Checkpoints.save

    def full(self, state, meta, step):
        if step == 2:
            self.wait()
            (self.folder / "2.orbax-checkpoint-tmp").mkdir()
            raise ValueError('RESOURCE_EXHAUSTED: Error writing "x": No space left on device')
        save(self, state, meta, step)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "save", full)
        with pytest.raises(trouble.Unwritable) as raised:
            train.train(config, tmp_path, "a test")
    said = str(raised.value)
    assert said.startswith(f"{tmp_path}: no space left on the device (")
    assert "the checkpoint of step 1 is whole, and the same command resumes" in said
    assert [p.name for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()] == ["1"]
    train.train(config, tmp_path, "a test")
    assert checkpoint.Checkpoints(tmp_path).steps() == [1, 2]


def test_a_store_that_fails_is_told_in_a_line_whatever_raised_it():
    tensorstore = ValueError('PERMISSION_DENIED: Error writing "x" at gs://b/run:\n no permission')
    outer = RuntimeError("the save failed")
    outer.__cause__ = tensorstore
    assert trouble.unwritable(outer, "gs://b/run")
    assert not trouble.unwritable(outer, "/here/run")
    assert trouble.said(tensorstore, "gs://b/run") == (
        "gs://b/run: the store does not do what it is asked (ValueError: PERMISSION_DENIED: Error "
        'writing "x" at gs://b/run: no permission)'
    )

    # A store may be gone so far that it does not even say what it holds.
    def gone():
        raise OSError("no route to host")

    keeper = SimpleNamespace(wait=gone, folder=None)
    said = str(training.unwritable(tensorstore, "gs://b/run", keeper))
    assert said.endswith(
        "no permission); what was saved before it stays, and the same command resumes"
    )
    # What we ourselves say of a place in a store is no failure of the store.
    assert not trouble.of_store(ConfigError("config.init_from='gs://b/run': no checkpoint there"))
    assert not trouble.of_store(FileNotFoundError("a.jpg"))


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
@pytest.mark.parametrize("section", ["", "data"])
def test_seeds_that_do_not_exist_are_refused(seed, section):
    config = settings.preset("configs/df_gan.py", "tiny")
    (config[section] if section else config).seed = seed
    name = f"config.{section}.seed" if section else "config.seed"
    with pytest.raises(ConfigError, match=rf"{name}={seed}: expected a whole number from 0 to"):
        command.check_seeds(config)


def test_a_file_is_no_work_directory(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigError, match=r"x is a file; give a folder"):
        command.check_place(tmp_path / "x" / "run")
    command.check_place(tmp_path / "new" / "run")


def test_a_configuration_that_is_no_python_is_one_line(tmp_path):
    (tmp_path / "c.py").write_text("It's text\n")
    with pytest.raises(SystemExit, match=r"--config=.*c\.py: no configuration, which is a Python"):
        command.parse(["train", f"--config={tmp_path / 'c.py'}"])
