"""Our side of a parity run: trunks of any size, and what both sides are given to read and draw.

Players, losses, optimisers and the step stay the library's.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from peers.sizes import draws

# The perception of a size that names its own trunks.
KIND = "peer"


def register(size: dict) -> None:
    """Makes `KIND` a perception of the library, with the size's trunks of random weights."""
    from jaxt2i.encoders import clip, dino, perception

    def make(settings):
        dtype = settings.dtype
        guide = clip.ClipImage(joint=size["sentence"], dtype=dtype, **size["clip"])
        features = dino.DinoFeatures(dtype=dtype, **size["dino"]) if "dino" in size else None
        return perception.Perception(
            text=clip.ClipText(joint=size["sentence"], dtype=dtype),  # a table takes its place
            guide=guide,
            features=features,
            guide_norm=clip.normalize_image,
            feature_norm=dino.normalize_image,
            guide_resolution=guide.resolution,
            feature_resolution=features.resolution if features else 0,
            sentence=size["sentence"],
            load={},
            about="perception: random trunks of a parity run",
        )

    perception.KINDS[KIND] = make


def with_given(job: dict, method, weights: Mapping[str, Any], spec: dict):
    """(method, frozen weights, batch): draws come with the batch, sentences from a table.

    Args:
      job: `data` names the file that both sides read.
      method: the library's.
      weights: {network: variables} that the official side began with.
      spec: of the library's batch.
    """
    import jax

    data, size = np.load(job["data"]), job["size"]
    frozen = {n: weights[n] for n in method.frozen if n in weights}
    nets = {n: method.nets[n] for n in (*method.trained, *frozen)}
    if "sentence" in data:
        nets["text"] = looked_up()
        table = np.concatenate([data["sentence"], data["held_sentence"]])
        frozen["text"] = {"params": {"sentence": table}}
    rows = draws(size)

    def wrapped(player):
        def loss(ctx, batch):
            ctx.draws = named(size, batch)
            return player.loss(ctx, {k: x for k, x in batch.items() if k not in rows})

        return dataclasses.replace(player, loss=loss)

    spec = spec | {
        name: jax.ShapeDtypeStruct((size["batch"], width), "float32")
        for name, width in rows.items()
    }
    players = tuple(map(wrapped, method.players))
    changed = {"nets": nets, "players": players, "frozen": tuple(frozen), "pretrained": {}}
    return dataclasses.replace(method, **changed, borrowed=()), frozen, spec


def named(size: dict, batch: Mapping[str, Any]) -> dict[str, Any]:
    """What the losses draw, by their names, from the rows of a batch."""
    if "z_g" not in batch:
        return {"z": batch["z"]}
    each = {"z_d": batch["z"], "z_g": batch["z_g"]}
    if "noise_d" not in batch:
        return each
    from jaxt2i.systems.stylegan_t import networks

    layers = networks.layer_sizes(size["resolution"], size["res_blocks"])
    ends = np.cumsum([n * n for n in layers.values()])

    def noise(row):
        of = zip(layers.items(), ends, strict=True)
        maps = {name: row[:, end - n * n : end].reshape(-1, n, n, 1) for (name, n), end in of}
        return {"noise": maps}

    return each | {name: noise(batch[name]) for name in ("noise_d", "noise_g")}


def looked_up():
    """A text encoder whose sentences were encoded before: the first token is a row's number."""
    import flax.linen as nn

    from jaxt2i.encoders.text import Text

    class Table(nn.Module):
        """(tokens [B, T], mask [B, T]) -> Text."""

        def __call__(self, tokens, mask):
            """Looks them up."""
            sentence = self.get_variable("params", "sentence")[tokens[:, 0]]
            return Text(sentence, sentence[:, None], mask[:, :1])

    return Table()
