"""python -m jaxt2i.train --config FILE[:preset] [--workdir DIR] [--config.KEY=VALUE ...]

Trains, or continues a run that was stopped: the same command resumes.
"""

import shlex
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/stylegan_t.py", "configuration FILE[:preset]", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "where the run is written; default runs/NAME")


def main(argv: list[str]) -> None:
    """Trains the configuration on the command line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; settings are --config.KEY=VALUE")
    from jaxt2i import runs

    runs.prepare_jax()
    config = CONFIG.value
    filename = config_flags.get_config_filename(flags.FLAGS["config"])
    file, _, preset = filename.partition(":")
    name = f"{Path(file).stem}-{preset or 'default'}"
    workdir = WORKDIR.value and Path(WORKDIR.value)
    command = shlex.join(["python", "-m", "jaxt2i.train", *sys.argv[1:]])
    try:
        workdir = workdir or runs.default_workdir(config, runs.preset(file, preset), name)
        runs.train(config, workdir, command)
    except runs.USER_ERRORS as error:
        runs.fail(error)


if __name__ == "__main__":
    app.run(main)
