"""The weights of a run as files of their own, with a card that says how they were made."""

import json
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxt2i import places
from jaxt2i.encoders import pretrained
from jaxt2i.run import checkpoint, exports, settings
from jaxt2i.run.files import json_lines


def export(
    workdir: epath.Path, folder: epath.Path, half: bool = False, step: int | None = None
) -> dict[str, Any]:
    """Writes the networks of a run's checkpoint as NET.safetensors with a card.json.

    Frozen networks that an earlier run trained are among them.

    Args:
      workdir: a training run.
      folder: where to write.
      half: store float16.
      step: of the checkpoint; None: the newest.

    Returns:
      The card: the command, the seed, the steps, the last scores, and the settings of the model.
    """
    config = settings.read_config(workdir)
    tree, where = checkpoint.latest(workdir, step)
    best = {**tree["params"], **tree.get("ema", {})}
    extra = {**tree.get("extra", {}), **tree.get("settled", {})}
    for net, params in best.items():
        variables = {"params": params, **extra.get(net, {})}
        pretrained.save_variables(
            folder / f"{net}.safetensors", variables, np.float16 if half else None
        )
    for file in places.matching(workdir / settings.INHERITED, "*.safetensors"):
        variables = pretrained.load_variables(file)
        pretrained.save_variables(folder / file.name, variables, np.float16 if half else None)
    card = card_of(config, workdir, int(epath.Path(where).name))
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


def card_of(config: ConfigDict, workdir: epath.Path, step: int) -> dict[str, Any]:
    """How weights were made: the command, the seed, the length, the last scores, the sizes.

    Args:
      config: of the run.
      workdir: its directory, or an export of it.
      step: of the weights.
    """
    if (workdir / exports.FILE).is_file():
        return json.loads((workdir / "card.json").read_text())
    lines = json_lines(workdir / "metrics.jsonl")
    scored = [
        x for x in lines if x.get("step", 0) <= step and any(k.startswith("score/") for k in x)
    ]
    command = workdir / "command.txt"
    return {
        "command": command.read_text().strip() if command.is_file() else "",
        "seed": config.seed,
        "step": step,
        "images": step * config.batch_size,
        "scores": {k: v for k, v in (scored or [{}])[-1].items() if k.startswith("score/")},
        "tokens": config.data.tokens,
        "resolution": config.data.resolution,
        "model": settings.plain(config.model),
    }
