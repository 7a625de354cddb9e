"""PickScore and HPSv2.1, from pictures and captions to scores, by others' code.

Tiny towers under the published names. PickScore is transformers' CLIPModel and Pillow image
processor, HPSv2.1 open_clip's CLIP and torchvision's resize.
"""

from collections.abc import Callable

import numpy as np

from jaxt2i.data.tokenize import ClipTokenizer
from jaxt2i.encoders import clip_names, features
from jaxt2i.evaluation import judges
from jaxt2i.evaluation.reading import Reader
from jaxt2i.evaluation.sets import Set, by_size
from jaxt2i.verify.arrays import Arrays
from jaxt2i.verify.encoders import clip_tower
from jaxt2i.verify.golden import Case, Golden, GoldenError
from jaxt2i.verify.networks import convert_net

SERVES = ("preference/*",)
# A case is called as the judge.
SOURCES = {"pick_score": features.PICKSCORE, "hps_v21": "xswu/HPSv2"}


def network(golden: Golden, name: str) -> features.Network:
    """A folder's towers under the name of the judge's network."""
    towers = {net: clip_tower(golden, name, net) for net in ("text", "image")}
    nets = features.clip_nets(towers["text"][0], towers["image"][0], SOURCES[name])
    variables = {net: weights for net, (_, weights) in towers.items()}
    if "temperature" in nets:
        table, module = (clip_names.TEMPERATURE,), nets["temperature"].module
        keep = ("logit_scale",)
        variables["temperature"] = convert_net(golden, name, table, module, keep=keep)
    return features.Network(judges.JUDGES[name].network, nets, variables)


def pictures(case: Case) -> Set:
    """The pictures of a case, of several sizes, with their captions."""
    shown = [x for key in ("in_wide", "in_tall") for x in case.inputs[key]]
    captions = tuple(map(str, case.inputs["in_captions"]))
    return Set(
        case.name,
        len(shown),
        lambda batch, rows: by_size(((r, shown[r]) for r in rows), batch),
        captions,
    )


def scores(golden: Golden, case: Case) -> Arrays:
    """The score of every picture with its caption, in every way of resizing.

    Raises:
      GoldenError: where captions have other tokens than the case says.
    """
    given = pictures(case)
    tokens, _ = ClipTokenizer(77)(given.captions)
    theirs = case.inputs["in_input_ids"]
    ends = theirs.argmax(1)
    for ours, other, end in zip(tokens, theirs, ends, strict=True):
        if not np.array_equal(ours[: end + 1], other[: end + 1]):
            raise GoldenError(f"{case.name}: its captions have other tokens here")
    reader = Reader({}, 4)
    reader.hold(network(golden, *case.info["weights"]))
    names = {out: case.name + out.removeprefix("out_scores") for out in case.outputs}
    found = judges.verdicts(tuple(names.values()), given, reader)
    return {out: found[name].values for out, name in names.items()}


CASES: dict[str, Callable] = {"pick_score": scores, "hps_v21": scores}
