"""python -m jaxt2i.train --config FILE[:preset] [--workdir DIR] [--dry-run] [--config.KEY=VALUE]

FILE is a Python file with a function get_config, or the name of one that comes with the package:
stylegan_t:lite64 is configs/stylegan_t.py:lite64, wherever it is installed.

Trains, or continues a run that was stopped: the same command resumes. --dry-run says what the run
would be (its settings, data, weights, networks, a step's work and memory) and stops. --help lists
every setting with its value and its meaning, of the configuration that stands beside it.
"""

import gc
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from absl import app, flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from jaxt2i import calling, places
from jaxt2i.config import AUTO, ConfigError, preset_file

FILE = "configs/stylegan_t.py"
HELP = ("--help", "-help", "--h", "-h", "-?")


def define() -> None:
    """Defines what the command line may say; a program that imports this has flags of its own."""
    config_flags.DEFINE_config_file("config", None, "configuration FILE[:preset]", lock_config=True)
    flags.DEFINE_string("workdir", None, "where the run is written; default runs/NAME-PRESET")
    flags.DEFINE_boolean("dry-run", False, "say what the run would be, and stop")
    flags.DEFINE_boolean("help-config", False, "list the settings alone, and stop")


def train(config: str | ConfigDict, workdir: epath.PathLike = "", **changes: Any) -> epath.Path:
    """Trains, or continues a run that was stopped.

    Args:
      config: "NAME:preset" of those that come with the package, FILE:preset, or a configuration.
      workdir: where the run is written; "": runs/NAME-PRESET, where a mark says that settings were
        changed. A configuration that was read needs one.
      changes: of settings: total_steps=100, or **{"data.path": "DIR"}.

    Returns:
      The work directory: `jaxt2i.load` draws from it.

    Raises:
      ConfigError: for impossible settings, before anything is compiled.
      ValueError, OSError: for unusable data, before anything is compiled.
    """
    from jaxt2i.run import open as runs
    from jaxt2i.run import settings

    name, before = (
        (config, settings.configuration(config, [])) if type(config) is str else ("", None)
    )
    config = before.copy_and_resolve_references() if name else config.copy_and_resolve_references()
    settings.changed(config, changes)
    if not (workdir or name):
        raise ConfigError("a configuration that was read needs a workdir, where the run is written")
    runs.prepare_jax()
    place = place_of(config, before, str(workdir), name)
    said = [repr(name or "config"), *(f"{k}={v!r}" for k, v in changes.items())]
    begin(config, place, f"jaxt2i.train({', '.join(said)})")
    return place


def begin(config: ConfigDict, workdir: epath.Path, command: str) -> None:
    """Trains what a configuration describes, in as many micro-batches as its memory asks for.

    Args:
      config: the configuration.
      workdir: where the run is written.
      command: kept for the record.
    """
    from jaxt2i.planning import fit
    from jaxt2i.run import log
    from jaxt2i.run import train as running
    from jaxt2i.run.training import TooLarge

    free = config.get("accumulate", 1) == AUTO
    config, chosen = fit.settled(config, workdir)
    while True:
        if chosen:
            log.say(*chosen)
        try:
            return running.train(config, workdir, command)
        except TooLarge as error:
            if not free:
                raise
            said = str(error)
        gc.collect()  # what the step held, before the next one is made
        config, chosen = fit.more(config, said, workdir)


def place_of(config: ConfigDict, before: ConfigDict | None, given: str, name: str) -> epath.Path:
    """The work directory, and that it can be one.

    Args:
      config: the configuration.
      before: its preset as the file has it.
      given: what the person named; "": nothing.
      name: FILE:preset.

    Raises:
      ConfigError: for a seed that does not exist, or a place that cannot be one.
    """
    from jaxt2i.run import settings

    check_seeds(config)
    file, _, preset = name.partition(":")
    named = f"{Path(file).stem}-{preset or 'default'}"
    workdir = places.of(given, "--workdir") if given else None
    workdir = workdir or settings.default_workdir(config, before, named)
    check_place(workdir)
    return workdir


def with_files(argv: list[str]) -> list[str]:
    """The command line with the files of configurations that are given by their names.

    Raises:
      ConfigError: for one that does not exist.
    """
    out = list(argv)
    for i, argument in enumerate(argv[1:], 1):
        alone = argv[i - 1] in ("--config", "-config")
        if named := re.fullmatch("()(.*)" if alone else "(--?config=)(.*)", argument):
            file, colon, preset = named[2].partition(":")
            out[i] = f"{named[1]}{preset_file(file)}{colon}{preset}"
    return out


def config_file(argv: list[str]) -> str | None:
    """FILE[:preset] behind the last --config, None where there is none."""
    after = [*argv[1:], ""]
    named = [
        argument.partition("=")[2] or following
        for argument, following in zip(argv, after, strict=True)
        if re.fullmatch(r"--?config(=.*)?", argument)
    ]
    return named[-1] if named else None


def parse(argv: list[str]) -> list[str]:
    """Reads the command line; what it gets wrong ends the program with one message."""
    if "config" not in flags.FLAGS:
        define()
    if config_file(argv) is None:
        argv = [argv[0], f"--config={FILE}", *argv[1:]]
    asked = [argument for argument in argv if argument not in HELP]
    options = flags.FLAGS.main_module_help() if len(asked) < len(argv) else ""
    try:
        argv = with_files(asked)
        rest = flags.FLAGS(argv)
        if options:
            print(help_text(options))
            sys.exit()
        return rest
    except (AttributeError, KeyError):
        from jaxt2i.run.settings import unknown

        sys.exit(f"error: {unknown(config_file(argv), argv[1:])}")
    except Exception as error:  # a configuration is a program, and may raise anything
        from jaxt2i.run.settings import reason_of

        named = isinstance(error, (flags.Error, ValueError, OSError))
        where = "" if named else f"--config={config_file(argv)}: "
        sys.exit(f"error: {where}{reason_of(error)}")


def help_text(options: str) -> str:
    """What --help says: of the command, its options and every setting of the configuration.

    Args:
      options: text of the options.
    """
    from jaxt2i.run import describe

    return "\n".join(
        (
            (sys.modules["__main__"].__doc__ or "").strip(),
            options,
            f"\nsettings of {config_flags.get_config_filename(flags.FLAGS['config'])}, "
            "--config.KEY=VALUE changes one; --config NAME[:preset] --help lists another's:\n",
            describe.describe(flags.FLAGS.config),
        )
    )


def check_seeds(config: ConfigDict) -> None:
    """Refuses seeds that do not exist.

    Raises:
      ConfigError: names the setting.
    """
    from jaxt2i.data.rows import MAX_SEED

    for name, section in (("config", config), ("config.data", config.get("data", {}))):
        seed = section.get("seed", 0)
        if not 0 <= seed <= MAX_SEED:
            raise ConfigError(f"{name}.seed={seed}: expected a whole number from 0 to {MAX_SEED}")


def check_place(workdir: epath.Path) -> None:
    """Refuses a file where a work directory should be, and a store that cannot hold one.

    Raises:
      ConfigError: names it.
    """
    if places.scheme_of(workdir):
        if workdir.is_file():
            raise ConfigError(f"--workdir {workdir}: an object has that name; give a folder")
        return
    above = next(p for p in (workdir, *workdir.absolute().parents) if p.exists())
    if not above.is_dir():
        raise ConfigError(f"--workdir {workdir}: {above} is a file; give a folder")


def main(argv: list[str]) -> None:
    """Trains the configuration on the command line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; settings are --config.KEY=VALUE")
    from jaxt2i.planning import dry_run, fit
    from jaxt2i.run import describe, log, processes, settings, trouble
    from jaxt2i.run import open as runs

    said, config = flags.FLAGS, flags.FLAGS.config
    if said["help-config"].value:
        print(describe.describe(config))
        return
    runs.prepare_jax()
    name = config_flags.get_config_filename(said["config"])
    file, _, preset = name.partition(":")
    command = shlex.join(["python", "-m", "jaxt2i.train", *sys.argv[1:]])
    with processes.together(), trouble.told_once():
        try:
            before = settings.preset(file, preset)
            workdir = place_of(config, before, said.workdir or "", name)
            if said["dry-run"].value:
                log.say(dry_run.dry_run(config, before, workdir))
            else:
                begin(config, workdir, command)
        except trouble.Unwritable as error:
            if processes.expected():  # the others must hear of it
                log.fail(error)
            trouble.leave(error)
        except (*runs.USER_ERRORS, *trouble.ERRORS) as error:
            log.fail(trouble.line(error))
        except RuntimeError as error:
            if not (said := fit.exhausted(error, config)):
                raise
            log.fail(ConfigError(said))


calling.as_function(__name__, train)

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
