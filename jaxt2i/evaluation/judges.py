"""What networks that learned from people's choices think of pictures and their captions.

Each judges a picture with its caption, and its score is the mean. CLIP's own similarity stands
beside them.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxt2i.evaluation.reading import Look, Reader
from jaxt2i.evaluation.sets import Set
from jaxt2i.metrics import confidence, retrieval
from jaxt2i.metrics.score import MetricError, Score


@dataclasses.dataclass(frozen=True)
class Judge:
    """A network and how its score is made.

    Attributes:
      network: key of `jaxt2i.encoders.features.NETWORKS`.
      input: how pictures are fed to it.
      scale: of the cosine.
      source: where this is defined.
    """

    network: str
    input: str
    scale: float
    source: str


JUDGES: dict[str, Judge] = {
    "clip_similarity": Judge(
        *("openai_vit_b32", "pillow_bicubic_crop", 1.0),
        "Radford et al. 2021, arXiv 2103.00020",
    ),
    # exp(logit_scale) of the published file is CLIP's largest, 100.
    "pick_score": Judge(
        *("pickscore_v1", "pillow_bicubic_crop", 100.0),
        "Kirstain et al. 2023, arXiv 2305.01569; code yuvalkirstain/PickScore",
    ),
    # Its tables print 100 times the cosine.
    "hps_v21": Judge(
        *("hps_v21", "hpsv2", 100.0),
        "Wu et al. 2023, arXiv 2306.09341; code tgxs002/HPSv2, version 2.1",
    ),
}


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """What a judge thinks of every picture.

    Attributes:
      metric: key of `JUDGES`.
      rows: [N], the rows of the set that could be read.
      values: [N].
    """

    metric: str
    rows: np.ndarray
    values: np.ndarray

    def score(self) -> Score:
        """The mean and its interval."""
        facts = {"generated": len(self.values)} | about(self.metric)
        score = Score(self.metric, float(self.values.mean()), facts=facts)
        return score.with_interval(confidence.of_mean(self.values)) if len(self.rows) > 1 else score


def about(metric: str) -> dict[str, str | float]:
    """Network and preprocessing of a judge."""
    judge = JUDGES[metric]
    told = {"network": judge.network, "preprocessing": judge.input, "scale": judge.scale}
    return told | {"source": judge.source}


def verdicts(metrics: Sequence[str], pictures: Set, reader: Reader) -> dict[str, Verdicts]:
    """{metric: what it thinks}, in one pass over the pictures.

    Raises:
      MetricError: for an unknown judge, or pictures without captions.
    """
    strange = [m for m in metrics if m not in JUDGES]
    if strange:
        raise MetricError(f"no judge {strange[0]!r}; known: {', '.join(JUDGES)}")
    if pictures.captions is None:
        raise MetricError(
            f"{pictures.lacking or f'{pictures.name} has no captions'}; {', '.join(metrics)} need "
            "them: put a.txt beside each a.png, or a metadata.jsonl into the folder"
        )
    looks = {m: Look(JUDGES[m].network, JUDGES[m].input) for m in metrics}
    seen = reader.read(pictures, looks.values())
    said = [pictures.captions[row] for row in seen.rows]
    out = {}
    for metric, look in looks.items():
        image = seen.features[look]["embedding"]
        found = retrieval.cosines(image, reader.texts(look.network, said))
        out[metric] = Verdicts(metric, seen.rows, JUDGES[metric].scale * found)
    return out
