"""Under which settings a score was measured: of every surveyed paper, and of the common codes.

A score means something beside another one only where both were measured alike. `PROTOCOLS` has
every setting by name, `difference` says in words what two of them do not share, and
`jaxt2i.metrics.published` holds the numbers that were printed under each.
"""

import dataclasses
import difflib
from typing import Any

from jaxt2i.metrics.score import MetricError

# How captions are chosen for the generated images.
CAPTIONS = {
    "passes": "one random caption of every image, pass after pass until there are enough",
    "one_pass": "one random caption of every image, one pass",
    "stored": "drawn with replacement from the images, of which each keeps one random caption",
    "first": "caption 0 of every image",
    "all": "every caption of every image",
    "distinct": "one random caption of each of so many distinct images, drawn once by a seed",
}


# What a protocol leaves open: it agrees with everything. A record of what was measured has it where
# nothing can be known, as of the pictures behind a file of statistics. Of numbers it is 0.
ANY = "any"
PUBLISHED, CONVERTED = "published", "converted"


@dataclasses.dataclass(frozen=True)
class Samples:
    """The generated images.

    Attributes:
      dataset: "cub", "oxford102" or "coco2014".
      split: whose captions are drawn.
      resolution: pixels at which images are compared.
      count: of generated images.
      captions: key of `CAPTIONS`, or the name of a file of captions.
      controls: of drawing, where they are not the defaults: "psi=0.7", or what a paper did.
      quantise: a rule of `jaxt2i.nn.pixels`.
      weights: "averaged" or "as trained".
      cap: how long captions may be, longer ones being cut: "18 words", "77 tokens".
      drawn: pixels at which images are drawn; 0: any.
      resize: from `drawn` to `resolution`: "none", or "lanczos" of the centre square.
      trained: whether the judged system trained on this data set: "yes", "no" or "unknown".
      listed: the file of a fixed list of pictures; "": the whole split.
    """

    dataset: str = "coco2014"
    split: str = "val"
    resolution: int = 256
    count: int = 30_000
    captions: str = "distinct"
    controls: str = "none"
    quantise: str = "stylegan"
    weights: str = ANY
    cap: str = ANY
    drawn: int = 0
    resize: str = "none"
    trained: str = ANY
    listed: str = ""


@dataclasses.dataclass(frozen=True)
class Reference:
    """The real images that generated ones are compared with.

    Attributes:
      file: statistics by the name of their file; "": the pictures themselves.
      dataset: whose pictures.
      split: of it.
      count: of pictures; 0: all.
      crop: what part of them is shown, see `jaxt2i.data.pictures.CROPS`.
      resize: by which filter of Pillow's.
      resolution: to how many pixels a side; 0: to that of the data's configuration.
      then: afterwards once more to so many pixels, by Lanczos; 0: not.
    """

    file: str = ""
    dataset: str = "coco2014"
    split: str = "val"
    count: int = 0
    crop: str = ANY
    resize: str = ANY
    resolution: int = 0
    then: int = 0


@dataclasses.dataclass(frozen=True)
class Fid:
    """The Frechet distance.

    Attributes:
      network: "inception_2015" (the graph that FID is defined by), "inception_torchvision" or
        "inception_keras" (ImageNet weights), "dinov2_l14".
      input: how images reach it: resize and range.
      ddof: covariances are divided by N - ddof.
      whole_batches: a last batch smaller than this is left out; 1 leaves none out.
      weights: of the network: `PUBLISHED`; of a DAMSM `CONVERTED`. Others go by their digest.
    """

    network: str = "inception_2015"
    input: str = "tf1"
    ddof: int = 1
    whole_batches: int = 1
    weights: str = PUBLISHED


@dataclasses.dataclass(frozen=True)
class Inception:
    """The Inception Score.

    Attributes:
      network: "inception_2015"; or StackGAN's TF-slim Inception, fine-tuned on the test classes of
        CUB ("inception_slim_cub") or Oxford-102 ("inception_slim_oxford102").
      input: how images reach it.
      output: "logits_unbiased" (the head without its bias) or "logits".
      first: classes before this one are left out.
      splits: how many.
      order: "file" or "shuffled".
      whole_batches: see `Fid`; the images are put into their order first.
      weights: see `Fid`.
    """

    network: str = "inception_2015"
    input: str = "tf1"
    output: str = "logits_unbiased"
    first: int = 0
    splits: int = 10
    order: str = "shuffled"
    whole_batches: int = 1
    weights: str = PUBLISHED


@dataclasses.dataclass(frozen=True)
class Kid:
    """The Kernel Inception Distance.

    Attributes:
      network: see `Fid`.
      input: see `Fid`.
      subsets: how many.
      size: of each.
      weights: see `Fid`.
    """

    network: str = "inception_2015"
    input: str = "tf1"
    subsets: int = 100
    size: int = 1000
    weights: str = PUBLISHED


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """R-precision.

    Attributes:
      network: whose image and sentence vectors: "damsm" (which AttnGAN's family trains against) or
        "clip_vit_b32".
      rule: "own_among": the own caption among `candidates`; "pool": `candidates` consecutive
        samples among each other, both directions.
      candidates: the own one included.
      negatives: "other_class": captions of images of another class; "other_image".
      folds: how many; of pools, one each.
      dropped: entries that every fold leaves out.
      weights: see `Fid`.
    """

    network: str = "clip_vit_b32"
    rule: str = "own_among"
    candidates: int = 100
    negatives: str = "other_image"
    folds: int = 10
    dropped: int = 0
    weights: str = PUBLISHED


@dataclasses.dataclass(frozen=True)
class Clip:
    """The CLIP score.

    Attributes:
      network: which CLIP, weights included.
      input: how images reach it.
      scale: see `jaxt2i.metrics.retrieval.SCALES`.
      prompt: what is put before each caption.
      weights: see `Fid`.
    """

    network: str = "openai_vit_b32"
    input: str = "pillow_bicubic_crop"
    scale: str = "cosine"
    prompt: str = ""
    weights: str = PUBLISHED


@dataclasses.dataclass(frozen=True)
class Balls:
    """Precision and recall, density and coverage.

    Attributes:
      network: "vgg16_fc2" (torchvision's weights) or "vgg16_nvidia" (the StyleGAN family's).
      input: how images reach it.
      k: neighbours.
      closed: a ball contains its surface.
      half: features and radii in float16.
      count: of generated images.
      real: of real images, at most.
      weights: see `Fid`.
    """

    network: str = "vgg16_fc2"
    input: str = "tf1_224_imagenet"
    k: int = 3
    closed: bool = True
    half: bool = False
    count: int = 30_000
    real: int = 40_504
    weights: str = PUBLISHED


@dataclasses.dataclass(frozen=True)
class Perceptual:
    """LPIPS.

    Attributes:
      network: "alex", "vgg" or "squeeze", of version 0.1.
      between: what is compared.
      weights: see `Fid`.
    """

    network: str = "alex"
    between: str = "pairs of samples of one caption"
    weights: str = PUBLISHED


@dataclasses.dataclass(frozen=True)
class Cmmd:
    """CMMD.

    Attributes:
      network: which CLIP.
      input: how images reach it.
      sigma: of the kernel.
      weights: see `Fid`.
    """

    network: str = "openai_vit_l14_336"
    input: str = "pillow_crop_bicubic"
    sigma: float = 10.0
    weights: str = PUBLISHED


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Everything that a reported number depends on besides the model.

    Attributes:
      name: key of `PROTOCOLS`.
      samples: the generated images.
      reference: the real ones, for metrics that compare with them.
      fid, inception, kid, retrieval, clip, balls, perceptual, cmmd: settings of a metric; None
        where the paper does not report it.
      note: what else has to be known, in words; not compared.
    """

    name: str
    samples: Samples = Samples()
    reference: Reference = Reference()
    fid: Fid | None = None
    inception: Inception | None = None
    kid: Kid | None = None
    retrieval: Retrieval | None = None
    clip: Clip | None = None
    balls: Balls | None = None
    perceptual: Perceptual | None = None
    cmmd: Cmmd | None = None
    note: str = ""


# The part of a protocol that each metric depends on, besides the samples.
PARTS = {
    "fid": "fid",
    "inception_score": "inception",
    "kid": "kid",
    "r_precision": "retrieval",
    "pool_precision": "retrieval",
    "clip_score": "clip",
    "precision": "balls",
    "recall": "balls",
    "density": "balls",
    "coverage": "balls",
    "diversity": "perceptual",
    "lpips": "perceptual",
    "cmmd": "cmmd",
}


def part(metric: str) -> str:
    """The field of a protocol that a metric depends on, besides the samples.

    Raises:
      MetricError: for a metric that no protocol speaks of.
    """
    if metric not in PARTS:
        raise MetricError(f"no protocol speaks of {metric!r}; known: {', '.join(PARTS)}")
    return PARTS[metric]


# Metrics that compare with real images.
COMPARING = ("fid", "kid", "precision", "recall", "density", "coverage", "cmmd")
# Numbers that a protocol leaves open by 0.
OPEN = ("samples.drawn", "reference.count", "reference.resolution")


def parts(metric: str = "") -> tuple[str, ...]:
    """The fields of a protocol that a metric depends on; "": all of them."""
    if not metric:
        return ("samples", "reference", *dict.fromkeys(PARTS.values()))
    return ("samples", *(("reference",) if metric in COMPARING else ()), part(metric))


def settings(protocol: Protocol) -> dict[str, Any]:
    """{"samples.count": 30000, ...}: all fields but the note, as plain values for a record."""
    out = {"name": protocol.name}
    for name in parts():
        fields = getattr(protocol, name)
        if fields is not None:
            out |= {f"{name}.{k}": v for k, v in dataclasses.asdict(fields).items()}
    return out


def agree(field: str, x: Any, y: Any) -> bool:
    """Whether two values of "part.field" are the same, or one of them is left open."""
    return x == y or ANY in (x, y) or (field in OPEN and 0 in (x, y))


def differences(a: Protocol, b: Protocol, metric: str = "") -> dict[str, tuple[Any, Any]]:
    """{"part.field": (of a, of b)} where two protocols differ.

    Args:
      a: one protocol.
      b: another.
      metric: compare only what this metric depends on; "" for the samples and all that both
        measure.

    Raises:
      MetricError: for an unknown metric.
    """
    out = {}
    compared = (metric,) if metric else COMPARING
    both = any(getattr(a, part(m)) and getattr(b, part(m)) for m in compared)
    for name in parts(metric):
        if name == "reference" and not both:
            continue
        x, y = getattr(a, name), getattr(b, name)
        if x is not None and y is not None:
            x, y = dataclasses.asdict(x), dataclasses.asdict(y)
            keys = (k for k in x if not agree(f"{name}.{k}", x[k], y[k]))
            out |= {f"{name}.{k}": (x[k], y[k]) for k in keys}
        elif metric and x is not y:
            out[name] = ("not measured", "measured") if x is None else ("measured", "not measured")
    return out


def difference(a: Protocol, b: Protocol, metric: str = "") -> str:
    """One sentence on what two protocols do not share.

    Args:
      a: one protocol.
      b: another.
      metric: see `differences`.
    """
    found = differences(a, b, metric)
    what = f" in {metric}" if metric else ""
    if not found:
        return f"{a.name} and {b.name} measure alike{what}."
    said = [f"{key} ({x} against {y})" for key, (x, y) in found.items()]
    listed = " and ".join([", ".join(said[:-1]), said[-1]] if said[1:] else said)
    return f"{a.name} and {b.name} differ{what} in {listed}."


def get(name: str) -> Protocol:
    """A protocol by name.

    Raises:
      MetricError: for an unknown name; names the nearest.
    """
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise MetricError(f"no protocol {name!r}; {hint}known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


# --- The table ---------------------------------------------------------------------------------

# AttnGAN's family draws with averaged weights at 256 px; captions are cut to 25 words on CUB and to
# 20 on COCO (in training to 18 and 12).
CUB = Samples(
    *("cub", "test", 256, 30_000, "passes", "none", "floor", "averaged", "25 words", 256),
    trained="yes",
)
COCO = dataclasses.replace(CUB, dataset="coco2014", split="val", cap="20 words")
COCO30K = Samples()
ZERO_SHOT = dataclasses.replace(COCO30K, trained="no")
# As that family shows held-out images: resized to 76/64 of the size, of which a part is cut out.
ZOOMED = Reference(crop="zoomed", resize="bilinear", resolution=256)
# As StyleGAN-T prepares a data set.
PREPARED = Reference(crop="centre", resize="lanczos", resolution=256)
SLIM_BIRDS = Inception(
    "inception_slim_cub", "pillow_bilinear_127.5", "logits", 1, 10, "shuffled", 64
)
SLIM_FLOWERS = dataclasses.replace(SLIM_BIRDS, network="inception_slim_oxford102")
COCO_IS = Inception(input="pillow_bilinear", order="file")
ATTNGAN_R = Retrieval("damsm", negatives="other_class", weights=CONVERTED)
DMGAN_R = dataclasses.replace(ATTNGAN_R, dropped=1)
TRUNCATED = "normal within 2, times 0.88"
LISTED = "40,470 of val2014's 40,504 images; the published metadata says which are left out"


def zoomed(file: str, samples: Samples) -> Reference:
    """Images of the family's loader, or statistics of them."""
    return dataclasses.replace(ZOOMED, file=file, dataset=samples.dataset, split=samples.split)


def dmgan(dataset: str, samples: Samples, file: str, score: Inception) -> tuple[Protocol, ...]:
    """DM-GAN's two FIDs of the same images."""
    own = Fid("inception_torchvision", "dmgan", whole_batches=64)
    reference = zoomed(file, samples)
    note = "the second FID of DM-GAN's README"
    return (
        Protocol(f"dmgan_{dataset}", samples, reference, own, score, retrieval=DMGAN_R),
        Protocol(f"dmgan_{dataset}_tf", samples, reference, Fid(), note=note),
    )


def loop(name: str, samples: Samples, reference: str, batch: int, **parts: Any) -> Protocol:
    """The FID that DF-GAN and GALIP measure while they train: pictures are never rounded."""
    samples = dataclasses.replace(samples, quantise="none", weights="as trained")
    fid = Fid("inception_torchvision", "galip", 1, batch)
    return Protocol(name, samples, zoomed(f"{reference}_val256_FIDK0.npz", samples), fid, **parts)


def stylegan_t(resolution: int) -> Protocol:
    """StyleGAN-T's fid30k_coco, cs10k_coco (30,000 in its code) and pr50k3_full."""
    samples = dataclasses.replace(
        ZERO_SHOT, resolution=resolution, captions="stored", weights="averaged", cap="77 tokens"
    )
    return Protocol(
        f"stylegan_t_coco{resolution}",
        dataclasses.replace(samples, drawn=resolution),
        dataclasses.replace(PREPARED, then=0 if resolution == 256 else resolution),
        Fid(input="stylegan", ddof=0),
        clip=Clip("open_clip_vit_g14_laion2b_s12b_b42k", "torch_bicubic", "cosine"),
        balls=Balls("vgg16_nvidia", "stylegan_224", half=True, count=50_000, real=200_000),
        note="precision and recall: what NVIDIA's VGG16 does to pictures was read in a port of it",
    )


def souza(dataset: str, training: int, test: int, score: Inception) -> tuple[Protocol, Protocol]:
    """Souza et al.: FID on training captions, Inception Score on those of the test split."""
    every = dataclasses.replace(CUB, dataset=dataset, count=test, captions="all", cap=ANY)
    train = dataclasses.replace(every, split="train", count=training, captions="first")
    file = {"cub": "CUB_stats.npz", "oxford102": "Oxford_stats.npz"}[dataset]
    reference = dataclasses.replace(zoomed(file, train), crop="zoomed_stretched")
    name = f"souza_{dataset}"
    note = "running statistics estimated anew by 100 forward passes before the images are drawn"
    return (
        Protocol(name, train, reference, Fid(), note=f"{note}; not comparable with test images"),
        Protocol(f"{name}_is", every, inception=score, note=note),
    )


DFGAN_COCO = dataclasses.replace(COCO, count=40_470, captions="one_pass", cap="18 words")
GALIP = {"resolution": 224, "drawn": 224, "cap": "77 tokens"}
GALIP_COCO = dataclasses.replace(COCO, count=40_470, captions="one_pass", **GALIP)
GALIP_CLIP = Clip("openai_vit_b32", "galip", "cosine")

_ALL = (
    # What jaxt2i measures unless it is asked for another: torch-fidelity's numbers.
    Protocol(
        "tf2015",
        COCO30K,
        Reference(),
        Fid(),
        Inception(),
        Kid(),
        Retrieval(),
        Clip(),
        Balls(),
        Perceptual(),
        Cmmd(),
    ),
    Protocol("pytorch_fid", COCO30K, fid=Fid(input="pytorch_fid")),
    Protocol("clean", COCO30K, fid=Fid(input="clean"), kid=Kid(input="clean")),
    Protocol("stylegan", COCO30K, fid=Fid(input="stylegan", ddof=0)),
    Protocol(
        "torchvision_dmgan", COCO30K, fid=Fid("inception_torchvision", "dmgan", whole_batches=64)
    ),
    Protocol(
        "adm",
        COCO30K,
        Reference(),
        Fid(),
        Inception(splits=6, order="file"),
        note="the Inception Score in splits of 5,000, whatever the number of images",
    ),
    Protocol("fdd", COCO30K, fid=Fid("dinov2_l14", "pillow_bicubic_imagenet")),
    Protocol(
        "coco30k",
        ZERO_SHOT,
        fid=Fid(),
        note="zero-shot FID of the diffusion era: codes and references vary, and the choice of "
        "captions alone moves it by 2 to 5 points",
    ),
    # AttnGAN's family.
    Protocol("attngan_cub", CUB, inception=SLIM_BIRDS, retrieval=ATTNGAN_R),
    Protocol("attngan_coco", COCO, inception=COCO_IS, retrieval=ATTNGAN_R),
    *dmgan("cub", CUB, "bird_val.npz", SLIM_BIRDS),
    *dmgan("coco", COCO, "coco_val.npz", COCO_IS),
    loop(
        "dfgan_cub",
        dataclasses.replace(CUB, count=29_330, controls=TRUNCATED, cap="18 words"),
        "bird",
        32,
        inception=SLIM_BIRDS,
        note="ten passes; the reference is said to hold flipped and shifted test images",
    ),
    loop(
        "dfgan_coco",
        dataclasses.replace(DFGAN_COCO, controls=TRUNCATED),
        "coco",
        32,
        note=LISTED,
    ),
    loop(
        "galip_cub",
        dataclasses.replace(CUB, count=35_196, **GALIP),
        "bird",
        64,
        clip=GALIP_CLIP,
        note="twelve passes",
    ),
    loop("galip_coco", GALIP_COCO, "coco", 64, clip=GALIP_CLIP, note=LISTED),
    loop(
        "galip_coco_zero_shot",
        dataclasses.replace(GALIP_COCO, trained="no"),
        "coco",
        64,
        clip=GALIP_CLIP,
        note=LISTED,
    ),
    stylegan_t(64),
    stylegan_t(256),
    *souza("cub", 8_855, 29_330, SLIM_BIRDS),
    *souza("oxford102", 7_034, 11_550, SLIM_FLOWERS),
    Protocol(
        "objgan_coco",
        dataclasses.replace(COCO, count=40_470, captions="one_pass", cap="12 words"),
        ZOOMED,
        Fid(),
        Inception(order="file"),
        retrieval=Retrieval("damsm", "pool", 100, "other_image", 1, weights=CONVERTED),
    ),
    Protocol(
        "opgan_coco",
        COCO,
        Reference(resolution=256),
        Fid(),
        COCO_IS,
        retrieval=ATTNGAN_R,
        note="no evaluation code was published; FID by TTUR's",
    ),
    Protocol(
        "xmcgan_coco128",
        dataclasses.replace(COCO30K, resolution=128, captions="stored", quantise="none"),
        Reference(count=30_000),
        Fid("inception_keras", "jax_bilinear_antialias"),
        note="mean of three runs",
    ),
    Protocol(
        "gigagan_coco256",
        dataclasses.replace(ZERO_SHOT, quantise=ANY, resize="lanczos"),
        PREPARED,
        Fid(input="clean"),
        clip=Clip(prompt="A photo depicts "),
        note="which 30,000 captions is not said; generated and real images go the same way",
    ),
    Protocol(
        "iir_net_coco",
        dataclasses.replace(COCO30K, count=150, resolution=512),
        clip=Clip("openai_vit_b32", "pillow_bicubic_crop", "percent"),
        perceptual=Perceptual("alex", "the picture and its edit"),
        note="settings inferred: no code was published",
    ),
)
PROTOCOLS: dict[str, Protocol] = {p.name: p for p in _ALL}
