"""Weights of earlier runs: networks that start from them, and frozen ones that stay them."""

import dataclasses
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from jaxt2i import places
from jaxt2i.config import ConfigError, nearest
from jaxt2i.data.sources import files, latents
from jaxt2i.encoders import pretrained
from jaxt2i.engine.method import Method
from jaxt2i.engine.state import State
from jaxt2i.metrics.statistics import weights_digest
from jaxt2i.run import checkpoint, exports, log, settings

EVERY = ""  # stands for every network that is not named


def folders(init_from: str | Mapping[str, str]) -> dict[str, str]:
    """{network: folder} of config.init_from; `EVERY` stands for all that are not named.

    Args:
      init_from: a folder for all networks, "NET=DIR,NET=DIR", or {net: folder}.
    """
    if not isinstance(init_from, str):
        return dict(init_from)
    if re.match(r"\w+=", init_from):
        pairs = [part.split("=", 1) for part in init_from.split(",")]
        if bad := [pair[0] for pair in pairs if len(pair) != 2 or not pair[1]]:
            raise ConfigError(
                f"config.init_from={init_from!r}: {bad[0]!r} has no folder; expected a folder, or "
                "NET=FOLDER,NET=FOLDER"
            )
        return dict(pairs)
    return {EVERY: init_from} if init_from else {}


def at_step(folder: str) -> tuple[str, int | None]:
    """(folder, step; None: the newest) of "FOLDER", "FOLDER@STEP" or "FOLDER@best".

    Raises:
      ConfigError: for a step that is not there.
    """
    place, _, which = folder.rpartition("@")
    if not place or places.of(folder, "config.init_from").exists():
        return folder, None
    score = settings.read_config(places.of(place, "config.init_from")).get("best_by", "")
    return place, checkpoint.chosen(place, which, score)


def earlier(folder: str) -> tuple[dict, str]:
    """Arrays of an earlier run, or of converted weights, for a fresh start.

    Networks that the run was given by a still earlier one are among them.

    Returns:
      ({"params": {net: tree}, "extra": ..., "ema": ...}, where they come from).

    Raises:
      ConfigError: when there is nothing to start from.
    """
    folder, which = at_step(folder)
    place = places.of(folder, "config.init_from")
    files = places.matching(place, "*.safetensors")
    if files:
        out, where = {"params": {}, "extra": {}}, folder
    else:
        out, where = checkpoint.latest(place, which)
        files = places.matching(place / settings.INHERITED, "*.safetensors")
    for file in files:
        variables = pretrained.load_variables(file)
        out["params"].setdefault(file.stem, variables.pop("params"))
        out.setdefault("extra", {}).setdefault(file.stem, variables)
    return out, where


def lender(folder: str) -> tuple[dict, str]:
    """What `earlier` finds where frozen networks are borrowed.

    Raises:
      ConfigError: where there is nothing; says how the embedded networks are trained.
    """
    try:
        return earlier(folder)
    except ConfigError as error:
        raise ConfigError(
            f"{error}. Frozen networks come from there; the embedded ones are trained by "
            "python -m jaxt2i.train --config configs/damsm.py"
        ) from None


def frozen_there(folder: str) -> set[str]:
    """The networks of an export that its run had from elsewhere, as this one has them."""
    about = exports.read(places.of(folder, "config.init_from")) or {"nets": {}}
    return {net for net, known in about["nets"].items() if not known.get("trained", True)}


def renamed(tree: dict, where: str, net: str, method: Method) -> dict:
    """What `earlier` found, with the network that serves as `net` under this name.

    Raises:
      ConfigError: where it is not there.
    """
    there = net if net in tree["params"] else method.called.get(net, net)
    if there not in tree["params"]:
        raise ConfigError(
            f"config.init_from: {where} holds no network {there!r}"
            f"{f', to be {net!r} here' if there != net else ''}; it holds "
            f"{', '.join(tree['params'])}"
        )
    return {
        part: {**nets, net: nets[there]} if there in nets else nets for part, nets in tree.items()
    }


def borrowed(config: Any, net: str, method: Method) -> dict:
    """A frozen network's variables from an earlier run, or from converted weights.

    Averaged weights where there are any. What a run keeps of its own comes first.

    Raises:
      ConfigError: where there is none, or one of other sizes.
    """
    kept = epath.Path(config.get("inherited") or "") / f"{net}.safetensors"
    if config.get("inherited") and kept.exists():
        return pretrained.load_variables(kept)
    by_net = folders(config.init_from)
    folder = by_net.get(net, by_net.get(EVERY, ""))
    if not folder:
        raise ConfigError(
            f"config.init_from names no folder for the network {net!r}, which comes from there: "
            "give the work directory of the run that trained it (python -m jaxt2i.train --config "
            "configs/damsm.py), or a folder that python -m jaxt2i.convert damsm wrote. To measure "
            "speed without: --config.model.weights=random"
        )
    tree = renamed(*lender(folder), net, method)
    best = {**tree["params"], **tree.get("ema", {})}
    extra = {**tree.get("extra", {}), **tree.get("settled", {})}
    variables = {"params": best[net], **extra.get(net, {})}
    given = {k: tuple(x.shape) for k, x in checkpoint.named(variables).items()}
    wanted = checkpoint.named(pretrained.template(method.nets[net]))
    for name, want in wanted.items():
        if given.get(name) != tuple(want.shape):
            raise ConfigError(
                f"config.init_from={folder!r}: {net}/{name} is {given.get(name, 'absent')} there, "
                f"{tuple(want.shape)} here; config.model and config.data must describe the network "
                "as it was trained"
            )
    return variables


def fresh_start(
    config: Any, method: Method, later: bool = False
) -> Callable[[State], State] | None:
    """What fills a fresh state from config.init_from, if that has more than borrowed networks.

    Args:
      config: the run's.
      method: its method.
      later: look at config.init_from only when a state is to be filled: a run that goes on from a
        checkpoint of its own needs it no more.

    Raises:
      ConfigError: for a network that the method does not have, and for trained networks of the
        earlier run that would be left behind without a word.
    """
    if later:
        return lambda state: (fresh_start(config, method) or (lambda fresh: fresh))(state)
    by_net = folders(config.init_from)
    for net in by_net:
        if net != EVERY and net not in method.nets:
            raise ConfigError(
                f"config.init_from names the network {net!r}; {nearest(net, method.nets)}"
            )
    wanted = {net: folder for net, folder in by_net.items() if net not in method.borrowed}
    if EVERY in wanted:
        held = set(lender(wanted[EVERY])[0]["params"]) - frozen_there(wanted[EVERY])
        without = (*by_net, *method.trained, *method.borrowed, *config.get("init_without", ()))
        check_left(wanted[EVERY], sorted(held - set(without)), method)
        if method.borrowed and not held & set(method.trained):
            del wanted[EVERY]
    if not wanted:
        return None

    def fill(state: State) -> State:
        for net, folder in wanted.items():
            tree, where = earlier(folder)
            mine = [n for n in method.trained if n not in wanted] if net == EVERY else [net]
            if net != EVERY:
                tree = renamed(tree, where, net, method)
            state, report = checkpoint.transfer(method, state, tree, where, mine)
            log.say(str(report))
        return state

    return fill


def check_left(folder: str, left: list[str], method: Method) -> None:
    """Refuses to leave networks behind that an earlier run trained.

    Raises:
      ConfigError: names them, and the setting that takes them.
    """
    if not left:
        return
    ways = [f"--config.{method.lineage[net]}" for net in left if net in method.lineage]
    ways.append(f"to go on without: --config.init_without={','.join(left)}")
    raise ConfigError(
        f"config.init_from={folder!r}: the networks {', '.join(left)} were trained there, and this "
        f"run would leave them behind: it trains {', '.join(method.trained)} and takes "
        f"{', '.join(method.borrowed) or 'no other'} from there. {'; '.join(ways)}"
    )


def with_own_latents(method: Method, folder: str) -> Method:
    """A method that refuses to train on latents of another autoencoder than its own.

    Whoever only draws needs no latents: where the folder is gone, nothing is compared.
    """
    name = method.latents
    load = method.pretrained.get(name)
    if load is None:
        return method

    def read() -> dict:
        variables = load()
        if not files.exists(posixpath.join(folder, latents.ABOUT)):
            return variables
        if latents.about_of(folder)["weights"] != weights_digest(variables):
            raise ConfigError(
                f"config.data.latents={folder!r} are those of another autoencoder than "
                f"{name!r} of this run; make them again: {latents.GET}"
            )
        return variables

    known = isinstance(load, pretrained.Weights)
    loader = dataclasses.replace(load, read=read) if known else read
    return dataclasses.replace(method, pretrained={**method.pretrained, name: loader})
