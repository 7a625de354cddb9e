"""What a configuration says, read: its file, its durations, how it differs from another."""

import difflib
import hashlib
import importlib.util
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from jaxt2i import places
from jaxt2i.config import ConfigError, alike, kind_of, nearest, preset_file, preset_files
from jaxt2i.configs.common import base
from jaxt2i.run import exports, log, shown

# Folder of a work directory with the networks of config.perception_from.
PERCEPTION = "perception"
# Letters of the mark in the name of a run whose settings were changed.
MARK = 6
# Folder of a work directory with the frozen networks that an earlier run trained.
INHERITED = "inherited"
UNITS = ("steps", "images", "epochs", "percent")
# Settings without which nothing can be opened; later ones may be absent from earlier runs.
NEEDED = (
    *("method", "seed", "batch_size", "precision", "init_from", "sharding"),
    *("mesh.data", "mesh.fsdp", "mesh.fsdp_min_mb", "mesh.tensor"),
    *(
        f"data.{name}"
        for name in (
            *("source", "corpus", "path", "split", "eval_split", "seed", "resolution", "crop"),
            *("margin", "resize", "decode", "cache_mb", "tokenizer", "tokens", "languages"),
            *("around_box", "objects", "object_order", "mask_resolution", "captions", "workers"),
        )
    ),
)
# Fields that may change between an attempt and its continuation without a word.
FREE = (
    *("log_every_steps", "checkpoint_every_steps", "sample_every_steps", "keep_checkpoints"),
    *("profile.start_step", "profile.steps", "profile.python_tracer"),
)


def plain(config: ConfigDict) -> dict[str, Any]:
    """A configuration as JSON data."""
    return json.loads(config.to_json_best_effort())


def read_config(workdir: epath.Path) -> ConfigDict:
    """The configuration that a run was started with.

    Raises:
      ConfigError: when the directory holds no run, or the file is damaged.
    """
    path = workdir / "config.json"
    export = (workdir / exports.FILE).is_file()
    if export and not path.is_file():
        raise ConfigError(f"{workdir} is an export without {path.name}; fetch or export it again")
    if not path.is_file():
        raise ConfigError(
            f"{workdir} holds no run: there is no {path.name} in it. Give the --workdir of a "
            "training run; train prints it when it starts"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        damage = damage_of(found)
    except (ValueError, RecursionError) as error:
        found, damage = {}, f"not readable as JSON: {error}"
    if damage and export:
        raise ConfigError(f"{path} is damaged ({damage}); fetch or export it again")
    if damage:
        raise ConfigError(
            f"{path} is damaged ({damage}); delete it and start the training command of "
            "command.txt again, which writes it anew and goes on, or take a copy of the file"
        )
    config = ConfigDict(found)
    if config.get("inherited"):
        config.inherited = str(workdir / INHERITED)
    own = workdir / PERCEPTION
    if config.get("perception_from") and (own.is_dir() or export) and "model" in config:
        # Wherever the work directory was when this was written.
        for name in ("clip_weights", "text_weights"):
            if epath.Path(config.model.get(name) or "").name == PERCEPTION:
                config.model[name] = str(own)
    return config


def check_whole(config: ConfigDict) -> None:
    """Refuses a configuration that lacks what nothing can be opened without.

    Raises:
      ConfigError: names what is absent.
    """
    there = flat(plain(config))
    absent = [name for name in NEEDED if name not in there]
    if absent:
        raise ConfigError(
            f"the configuration lacks config.{', config.'.join(absent[:5])}: start its file from "
            "jaxt2i.configs.common.base(), or where it is a run's config.json, delete that and "
            "start the training command of command.txt again, which writes it anew and goes on"
        )


def damage_of(found: Any) -> str:
    """What a configuration that was read lacks to be one, in words; "" where all is well."""
    if not isinstance(found, dict):
        return f"it holds no settings, but {str(found)[:40]}"
    known, now = plain(base()), flat(found)
    for name, value in known.items():
        if isinstance(value, dict) and not isinstance(found.get(name, {}), dict):
            return f"config.{name} is {str(found[name])[:40]}, expected a section of settings"
    for name, value in flat(known).items():
        # Height and width of pictures may differ; the other is checked by who reads it.
        other = name == "data.resolution" and isinstance(now.get(name), list)
        other = other or name == "accumulate"
        if name in now and not other and not alike(now[name], value):
            return f"config.{name} is {str(now[name])[:40]}, expected {kind_of(value)}"
    return ""


def write_config(workdir: epath.Path, config: ConfigDict, command: str) -> None:
    """Keeps the configuration and the command in the work directory."""
    if jax.process_index() == 0:
        (workdir / "command.txt").write_text(command + "\n")
        text = json.dumps(plain(config), indent=2) + "\n"
        # Another process may be reading what an earlier attempt wrote.
        places.write_whole(workdir / "config.json", text)


def keep(workdir: epath.Path, key: str, value: Any) -> None:
    """Changes one setting of a run, for the attempts to come."""
    found = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    places.write_whole(workdir / "config.json", json.dumps(found | {key: value}, indent=2) + "\n")


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a.b": value} of nested dictionaries."""
    out = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        out |= flat(value, name + ".") if isinstance(value, Mapping) else {name: value}
    return out


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Sentences on the fields in which two configurations differ."""
    old, new = flat(before), flat(now)
    return [
        f"config.{key}: {old.get(key, 'absent')!r} -> {new.get(key, 'absent')!r}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and key not in FREE
    ]


def note_changes(workdir: epath.Path, config: ConfigDict) -> None:
    """Says which fields differ from those of the attempt that is being continued."""
    if (workdir / "config.json").is_file():
        changed = differences(plain(read_config(workdir)), plain(config))
        if changed:
            log.say("continuing with changed settings:", *(f"  {line}" for line in changed))


def preset(file: str, name: str) -> ConfigDict:
    """The configuration of FILE:NAME as it stands in the file; see `jaxt2i.config.preset_file`."""
    module = module_of(preset_file(file))
    return module.get_config(name) if name else module.get_config()


def presets(name: str = "") -> shown.Shown:
    """The configurations that come with the package, as a table that shows itself.

    Args:
      name: of one file, such as "galip"; "": all.

    Returns:
      {"NAME:PRESET", as `train` takes it: what its docstring says}.

    Raises:
      ConfigError: where there is no such file.
    """
    files = preset_files()
    if name and name not in files:
        raise ConfigError(f"no presets of the name {name!r}; {nearest(name, files)}")
    found = {
        f"{file}:{preset}": inspect.getdoc(make) or ""
        for file in ([name] if name else files)
        for preset, make in module_of(str(files[file])).PRESETS.items()
    }
    rows = ((key, said.partition("\n\n")[0].replace("\n", " ")) for key, said in found.items())
    return shown.Shown(found, ("preset", "what it is"), rows)


def module_of(file: str) -> ModuleType:
    """A configuration file as a module."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def changed(config: ConfigDict, changes: Mapping[str, Any]) -> None:
    """Changes settings in place.

    Args:
      config: the configuration.
      changes: {"batch_size": 8, "data.path": "DIR", ...}.

    Raises:
      ConfigError: for a setting that there is not, or a value of another kind.
    """
    known = flat(plain(config))
    for key, value in changes.items():
        if key not in known:
            raise ConfigError(f"there is no setting config.{key}; {nearest(key, known)}")
        *path, last = key.split(".")
        section = config
        for part in path:
            section = section[part]
        if key != "accumulate" and not alike(value, section[last]) and section[last] is not None:
            raise ConfigError(f"config.{key}={value!r}: expected {kind_of(section[last])}")
        section[last] = value


def configuration(file: str, changes: Sequence[str]) -> ConfigDict:
    """The configuration of FILE[:preset] with --config.KEY=VALUE changes, as train reads them.

    Raises:
      ConfigError: when the file or a setting does not exist.
    """
    name, colon, preset = file.partition(":")
    file = f"{preset_file(name)}{colon}{preset}"
    values, said = flags.FlagValues(), ["jaxt2i", f"--config={file}", *changes]
    # Else it looks for changes in what the program that calls this was started with.
    how = {"flag_values": values, "sys_argv": said, "lock_config": True}
    found = config_flags.DEFINE_config_file("config", None, **how)
    try:
        values(said)
    except (AttributeError, KeyError):
        raise ConfigError(unknown(file, changes)) from None
    except Exception as error:  # the file is a program, and may raise anything
        raise ConfigError(f"--config {' '.join([file, *changes])}: {reason_of(error)}") from None
    return found.value


def unknown(file: str, arguments: Sequence[str]) -> str:
    """What to say of the first --config.KEY that a configuration does not have, or of a file whose
    own program stops.

    Args:
      file: FILE[:preset].
      arguments: of a command line.
    """
    name, _, preset_ = file.partition(":")
    try:
        known = [f"config.{key}" for key in flat(plain(preset(name, preset_)))]
    except Exception as error:  # a configuration is a program, and may raise anything
        return f"--config {file}: {reason_of(error)}"
    for argument in arguments:
        match = re.match(r"--?(config\.[\w.]+)", argument)
        key = match and match[1]
        if key and not any(k == key or k.startswith(f"{key}.") for k in known):
            near = difflib.get_close_matches(key, known, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(known)}"
            return f"{name} has no setting {key}; {hint}"
    return f"{' '.join(arguments)}: one of these settings does not exist in {name}"


def reason_of(error: Exception) -> str:
    """Why a configuration file could not be read, in a line.

    A configuration's own error arrives wrapped in a traceback, whose last line is the message.
    """
    last = (str(error).strip().splitlines() or [""])[-1]
    last = re.sub(r"^[\w.]*(ConfigError|ValueError): ", "", last)
    expected = (AttributeError, KeyError, ValueError, OSError, flags.Error)
    if isinstance(error, expected) and not isinstance(error, UnicodeError):
        return last
    return f"no configuration, which is a Python file ({type(error).__name__}: {last})"


def trained_by(workdir: epath.Path) -> str:
    """Where the run of a default name may be, behind "; "; "" for another name.

    That is the command that makes it, and runs of its preset whose settings were changed.
    """
    name, _, named = workdir.name.partition("-")
    files = preset_files()
    known = module_of(str(files[name])).PRESETS if name in files else ()
    if not named or (named != "default" and named not in known):
        return ""
    preset = "" if named == "default" else f":{named}"
    how = f"; that one is trained by python -m jaxt2i.train --config configs/{name}.py{preset}"
    marked = workdir.parent.glob(f"{workdir.name}-{'[0-9a-f]' * MARK}")
    beside = sorted(str(x) for x in marked if (x / "config.json").exists())
    return how + (f"; with other settings there is {', '.join(beside)}" if beside else "")


def default_workdir(config: ConfigDict, preset: ConfigDict, name: str) -> epath.Path:
    """runs/NAME, with a mark when the command line changed the preset: the same command resumes."""
    changed = differences(plain(preset), plain(config))
    mark = "-" + hashlib.sha256("".join(changed).encode()).hexdigest()[:MARK] if changed else ""
    return epath.Path("runs") / f"{name}{mark}"


def milestones(config: Mapping[str, Any], total: int, epoch: int | None) -> tuple[int, ...]:
    """The steps of config.keep_at_steps and config.keep_at_epochs.

    Raises:
      ConfigError: for one beyond the run's end, and for epochs of a source without end.
    """
    asked = tuple(config["keep_at_epochs"])
    if asked and epoch is None:
        raise ConfigError(
            f"config.keep_at_epochs={asked}: this data source has no end, so it has no epochs; set "
            "config.keep_at_steps"
        )
    each = [round(n * (epoch or 0) / config["batch_size"]) for n in asked]
    found = sorted({*map(int, config["keep_at_steps"]), *each})
    if found and not 1 <= found[0] <= found[-1] <= total:
        raise ConfigError(
            f"config.keep_at_steps and keep_at_epochs ask for the steps {found}; this run has 1 to "
            f"{total}"
        )
    return tuple(found)


def unread(config: Mapping[str, Any]) -> list[str]:
    """Sentences on lengths of the run that another one goes before; see `steps`."""
    given = [f"config.total_{unit}" for unit in UNITS if config.get(f"total_{unit}", 0)]
    return [
        f"{name} is not read: {given[0]} goes before it; set --{given[0]}=0" for name in given[1:]
    ]


def steps(
    section: Mapping[str, Any],
    name: str,
    *,
    batch_size: int,
    epoch_images: int | None = None,
    total_steps: int | None = None,
) -> int:
    """A duration in steps: the first of NAME_steps, _images, _epochs, _percent that is not 0.

    Args:
      section: config section that holds the keys.
      name: what lasts, such as "total".
      batch_size: global batch.
      epoch_images: examples of one epoch, for `_epochs`.
      total_steps: length of the run, for `_percent`.

    Raises:
      ConfigError: for epochs of an unlimited source, or percents of an unknown total.
    """
    for unit in UNITS:
        value = section.get(f"{name}_{unit}", 0)
        if not value:
            continue
        if unit == "steps":
            return int(value)
        if unit == "images":
            return max(1, round(value / batch_size))
        if unit == "epochs":
            if epoch_images is None:
                raise ConfigError(
                    f"config.{name}_epochs={value}: this data source has no end, so it has no "
                    f"epochs; set config.{name}_steps or config.{name}_images"
                )
            return max(1, round(value * epoch_images / batch_size))
        if total_steps is None:
            raise ConfigError(f"config.{name}_percent={value}: a percentage of what is not known")
        return max(1, round(value / 100 * total_steps))
    return 0
