"""What networks that learned from people's choices think of pictures and their captions.

Each judges a picture with its caption, and its score is the mean. CLIP's own similarity stands
beside them.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxt2i.data import tokenize
from jaxt2i.encoders import perception
from jaxt2i.evaluation import joint
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
      scale: of the cosine of picture and caption; 0: the network gives the score itself.
      source: where this is defined.
      learned: the network's own inverse temperature is a factor too.
    """

    network: str
    input: str
    scale: float
    source: str
    learned: bool = False


# The small CLIP that ships with jaxt2i: for runs on its procedural pictures, which it has read.
MINI = "mini_clip"

JUDGES: dict[str, Judge] = {
    MINI: Judge(MINI, "unit_range", 1.0, "configs/clip.py, the weights that ship with jaxt2i"),
    "clip_similarity": Judge(
        *("openai_vit_b32", "pillow_bicubic_crop", 1.0),
        "Radford et al. 2021, arXiv 2103.00020",
    ),
    "pick_score": Judge(
        *("pickscore_v1", "hf_bicubic_crop", 1.0),
        "Kirstain et al. 2023, arXiv 2305.01569; code yuvalkirstain/PickScore",
        learned=True,
    ),
    # Its tables print 100 times the cosine. (Inferred from their dates:) they were made before
    # torchvision 0.17, which resizes otherwise; the second one is what the same code gives today.
    "hps_v21": Judge(
        *("hps_v21", "hpsv2", 100.0),
        "Wu et al. 2023, arXiv 2306.09341; code tgxs002/HPSv2, version 2.1",
    ),
    "hps_v21_antialias": Judge(
        *("hps_v21", "hpsv2_antialias", 100.0),
        "as hps_v21, with torchvision 0.17 or later; not beside its published rows",
    ),
    "image_reward": Judge(
        *("image_reward", "pillow_bicubic_crop", 0.0),
        "Xu et al. 2023, arXiv 2304.05977; code THUDM/ImageReward, version 1.0",
    ),
    # CLIP-FlanT5 in float32, where its authors compute in bfloat16; the paper's is the larger one.
    **{
        metric: Judge(
            *(f"clip_flant5_{size}", "pillow_bicubic_pad", 0.0),
            "Lin et al. 2024, arXiv 2404.01291; code linzhiqiu/t2v_metrics before 3.1",
        )
        for metric, size in (("vqa_score", "xxl"), ("vqa_score_xl", "xl"))
    },
}


# HPSv2.1 of its own benchmark, the mean of four styles of 800 prompts.
HPS_STYLES, HPS_PROMPTS = {"anime", "concept-art", "paintings", "photo"}, 800
HPS_PUBLISHED = {"LAFITE": 18.46, "Stable Diffusion 1.4": 25.35}


def hps_beside(styles: Mapping[str, int], pictures: int, weights: str) -> list[str]:
    """The published rows of HPSv2.1 where pictures were judged as for them; else what differs.

    Args:
      styles: {style: its prompts with a picture}; empty for another suite.
      pictures: how many were judged.
      weights: file of the network, "random", or "" for the published one.
    """
    differs = []
    if set(styles) != HPS_STYLES:
        differs.append(f"styles ({', '.join(styles) or 'none'})")
    elif set(styles.values()) != {HPS_PROMPTS}:
        differs.append(f"prompts ({sum(styles.values()):,} of {4 * HPS_PROMPTS:,})")
    elif pictures != 4 * HPS_PROMPTS:
        differs.append(f"pictures ({pictures:,} of {4 * HPS_PROMPTS:,}, one a prompt)")
    if weights:
        differs.append(f"weights ({weights})")
    if differs:
        return [f"published HPSv2.1 scores are not beside these: {' and '.join(differs)} differ"]
    rows = ", ".join(f"{name} {value}" for name, value in HPS_PUBLISHED.items())
    return [f"published, HPSv2.1 over its four styles: {rows}"]


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
    told = {"network": judge.network, "preprocessing": judge.input, "source": judge.source}
    if judge.learned:
        return told | {"scale": "exp(logit_scale) of its file"}
    return told | ({"scale": judge.scale} if judge.scale else {})


def scale_of(metric: str, reader: Reader) -> float:
    """What the cosine of picture and caption is multiplied by."""
    judge = JUDGES[metric]
    if not judge.learned:
        return judge.scale
    network = reader.network(judge.network)
    module = network.nets["temperature"].module
    return judge.scale * float(module.apply(network.variables["temperature"]))


def verdicts(metrics: Sequence[str], pictures: Set, reader: Reader) -> dict[str, Verdicts]:
    """{metric: what it thinks}, in one pass over the pictures, and one more of each network that
    reads picture and caption together.

    Args:
      metrics: keys of `JUDGES`.
      pictures: with captions.
      reader: of pictures and captions.

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
    looks = {m: look_of(m, reader) for m in metrics if JUDGES[m].scale}
    out, seen = {}, reader.read(pictures, looks.values()) if looks else None
    for metric, look in looks.items():
        image = seen.features[look]["embedding"]
        said = [pictures.captions[row] for row in seen.rows]
        found = retrieval.cosines(image, reader.texts(look.network, said))
        out[metric] = Verdicts(metric, seen.rows, scale_of(metric, reader) * found)
    for metric in (m for m in metrics if not JUDGES[m].scale):
        judge = JUDGES[metric]
        rows, values = joint.READ[metric](pictures, reader, Look(judge.network, judge.input))
        out[metric] = Verdicts(metric, rows, values)
    return {metric: out[metric] for metric in metrics}


def look_of(metric: str, reader: Reader) -> Look:
    """How a judge looks at pictures; lends the reader what ships with this package."""
    judge = JUDGES[metric]
    if metric == MINI and not reader.lent(MINI):
        lend_mini(reader)
    return Look(judge.network, judge.input)


def lend_mini(reader: Reader) -> None:
    """Gives the reader the shipped CLIP."""
    sees = perception.make("mini")
    tokenizer = tokenize.make_tokenizer(str(perception.MINI / "tokenizer.json"), sees.text.length)
    weights = {"text": sees.load["text"](), "image": sees.load["guide"]()}
    reader.lend(
        MINI,
        lambda variables, pixels: sees.guide.apply(variables["image"], sees.look(pixels))[0],
        lambda variables, *said: sees.text.apply(variables["text"], *said).sentence,
        weights,
        tokenizer,
        "shipped",
    )


def values_of(
    metric: str, pixels: np.ndarray, captions: Sequence[str], reader: Reader
) -> np.ndarray:
    """Scores [n] of pictures uint8 [n, H, W, 3] with their captions, by a judge with a scale."""
    look, parts = look_of(metric, reader), []
    for at in range(0, len(pixels), reader.batch):
        parts.append(reader.see(look, pixels[at : at + reader.batch])["embedding"])
    text = reader.texts(look.network, list(captions))
    return scale_of(metric, reader) * retrieval.cosines(np.concatenate(parts), text)
