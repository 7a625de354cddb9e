"""The newest weights of a run as files of their own, with a card that says how they were made."""

import json
from typing import Any

import numpy as np
from etils import epath

from jaxt2i import places
from jaxt2i.encoders import pretrained
from jaxt2i.run import checkpoint, settings
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
    lines = json_lines(workdir / "metrics.jsonl")
    scores = [x for x in lines if any(k.startswith("score/") for k in x)] or [{}]
    command = workdir / "command.txt"
    card = {
        "command": command.read_text().strip() if command.is_file() else "",
        "seed": config.seed,
        "step": int(epath.Path(where).name),
        "images": int(epath.Path(where).name) * config.batch_size,
        "scores": {k: v for k, v in scores[-1].items() if k.startswith("score/")},
        "tokens": config.data.tokens,
        "resolution": config.data.resolution,
        "model": settings.plain(config.model),
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return card
