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


@dataclasses.dataclass(frozen=True)
class Samples:
    """The generated images.

    Attributes:
      dataset: "cub", "oxford102" or "coco2014".
      split: whose captions are drawn.
      resolution: pixels at which images are compared.
      count: of generated images.
      captions: key of `CAPTIONS`.
      controls: of drawing, where they are not the defaults: "psi=0.7", or what a paper did.
      quantise: a rule of `jaxt2i.nn.pixels`.
    """

    dataset: str = "coco2014"
    split: str = "val"
    resolution: int = 256
    count: int = 30_000
    captions: str = "distinct"
    controls: str = "none"
    quantise: str = "stylegan"


@dataclasses.dataclass(frozen=True)
class Fid:
    """The Frechet distance.

    Attributes:
      network: "inception_2015" (the graph that FID is defined by), "inception_torchvision" or
        "inception_keras" (ImageNet weights), "dinov2_l14".
      input: how images reach it: resize and range.
      reference: whose moments.
      ddof: covariances are divided by N - ddof.
      whole_batches: a last batch smaller than this is left out; 1 leaves none out.
    """

    network: str = "inception_2015"
    input: str = "tf1"
    reference: str = "all images of the split"
    ddof: int = 1
    whole_batches: int = 1


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
    """

    network: str = "inception_2015"
    input: str = "tf1"
    output: str = "logits_unbiased"
    first: int = 0
    splits: int = 10
    order: str = "shuffled"
    whole_batches: int = 1


@dataclasses.dataclass(frozen=True)
class Kid:
    """The Kernel Inception Distance.

    Attributes:
      network: see `Fid`.
      input: see `Fid`.
      subsets: how many.
      size: of each.
    """

    network: str = "inception_2015"
    input: str = "tf1"
    subsets: int = 100
    size: int = 1000


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
    """

    network: str = "clip_vit_b32"
    rule: str = "own_among"
    candidates: int = 100
    negatives: str = "other_image"
    folds: int = 10
    dropped: int = 0


@dataclasses.dataclass(frozen=True)
class Clip:
    """The CLIP score.

    Attributes:
      network: which CLIP, weights included.
      input: how images reach it.
      scale: see `jaxt2i.metrics.retrieval.SCALES`.
    """

    network: str = "openai_vit_b32"
    input: str = "pillow_bicubic_crop"
    scale: str = "cosine"


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
    """

    network: str = "vgg16_fc2"
    input: str = "tf1_224_imagenet"
    k: int = 3
    closed: bool = True
    half: bool = False
    count: int = 30_000
    real: int = 40_504


@dataclasses.dataclass(frozen=True)
class Perceptual:
    """LPIPS.

    Attributes:
      network: "alex", "vgg" or "squeeze", of version 0.1.
      between: what is compared.
    """

    network: str = "alex"
    between: str = "pairs of samples of one caption"


@dataclasses.dataclass(frozen=True)
class Cmmd:
    """CMMD.

    Attributes:
      network: which CLIP.
      input: how images reach it.
      sigma: of the kernel.
    """

    network: str = "openai_vit_l14_336"
    input: str = "pillow_crop_bicubic"
    sigma: float = 10.0


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Everything that a reported number depends on besides the model.

    Attributes:
      name: key of `PROTOCOLS`.
      samples: the generated images.
      fid, inception, kid, retrieval, clip, balls, perceptual, cmmd: settings of a metric; None
        where the paper does not report it.
      note: what else has to be known, in words; not compared.
    """

    name: str
    samples: Samples = Samples()
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


def settings(protocol: Protocol) -> dict[str, Any]:
    """{"samples.count": 30000, ...}: all fields but the note, as plain values for a record."""
    out = {"name": protocol.name}
    for name in ("samples", *dict.fromkeys(PARTS.values())):
        fields = getattr(protocol, name)
        if fields is not None:
            out |= {f"{name}.{k}": v for k, v in dataclasses.asdict(fields).items()}
    return out


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
    for name in ("samples", part(metric)) if metric else ("samples", *PARTS.values()):
        x, y = getattr(a, name), getattr(b, name)
        if x is not None and y is not None:
            x, y = dataclasses.asdict(x), dataclasses.asdict(y)
            out |= {f"{name}.{k}": (x[k], y[k]) for k in x if x[k] != y[k]}
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

CUB = Samples("cub", "test", captions="passes", quantise="floor")
COCO = Samples("coco2014", "val", captions="passes", quantise="floor")
COCO30K = Samples()
SLIM_BIRDS = Inception(
    "inception_slim_cub", "pillow_bilinear_127.5", "logits", 1, 10, "shuffled", 64
)
SLIM_FLOWERS = dataclasses.replace(SLIM_BIRDS, network="inception_slim_oxford102")
COCO_IS = Inception(input="pillow_bilinear", order="file")
ATTNGAN_R = Retrieval("damsm", negatives="other_class")
DMGAN_R = dataclasses.replace(ATTNGAN_R, dropped=1)
TRUNCATED = "normal within 2, times 0.88"


def dmgan(dataset: str, samples: Samples, reference: str, score: Inception) -> tuple[Protocol, ...]:
    """DM-GAN's two FIDs of the same images."""
    own = Fid("inception_torchvision", "dmgan", reference, whole_batches=64)
    usual = Fid(reference=reference)
    return (
        Protocol(f"dmgan_{dataset}", samples, own, score, retrieval=DMGAN_R),
        Protocol(f"dmgan_{dataset}_tf", samples, usual, note="the second FID of DM-GAN's README"),
    )


def loop(name: str, samples: Samples, reference: str, batch: int, **parts: Any) -> Protocol:
    """The FID that DF-GAN and GALIP measure while they train: pictures are never rounded."""
    samples = dataclasses.replace(samples, quantise="none")
    fid = Fid("inception_torchvision", "galip", f"{reference}_val256_FIDK0.npz", 1, batch)
    return Protocol(name, samples, fid, **parts)


def stylegan_t(resolution: int) -> Protocol:
    """StyleGAN-T's fid30k_coco, cs10k_coco (30,000 in its code) and pr50k3_full."""
    smaller = "" if resolution == 256 else f", Lanczos again to {resolution}"
    reference = f"all 40,504 images of val2014, centre crop, Lanczos to 256{smaller}"
    return Protocol(
        f"stylegan_t_coco{resolution}",
        Samples(resolution=resolution, captions="stored", controls="none"),
        Fid(input="stylegan", reference=reference, ddof=0),
        clip=Clip("open_clip_vit_g14_laion2b_s12b_b42k", "torch_bicubic", "cosine"),
        balls=Balls("vgg16_nvidia", "stylegan_224", half=True, count=50_000, real=200_000),
        note="precision and recall: what NVIDIA's VGG16 does to pictures was read in a port of it",
    )


def souza(dataset: str, training: int, test: int, score: Inception) -> tuple[Protocol, Protocol]:
    """Souza et al.: FID on training captions, Inception Score on those of the test split."""
    train = Samples(dataset, "train", 256, training, "first", quantise="floor")
    every = Samples(dataset, "test", 256, test, "all", quantise="floor")
    name = f"souza_{dataset}"
    fid = Fid(reference="all images of the training split")
    note = "running statistics estimated anew by 100 forward passes before the images are drawn"
    return (
        Protocol(name, train, fid, note=f"{note}; not comparable with FIDs on test images"),
        Protocol(f"{name}_is", every, inception=score, note=note),
    )


GALIP_CLIP = Clip("openai_vit_b32", "galip", "cosine")

_ALL = (
    # What jaxt2i measures unless it is asked for another: torch-fidelity's numbers.
    Protocol(
        "tf2015",
        COCO30K,
        Fid(),
        Inception(),
        Kid(),
        Retrieval(),
        Clip(),
        Balls(),
        Perceptual(),
        Cmmd(),
    ),
    Protocol("pytorch_fid", COCO30K, Fid(input="pytorch_fid")),
    Protocol("clean", COCO30K, Fid(input="clean"), kid=Kid(input="clean")),
    Protocol("stylegan", COCO30K, Fid(input="stylegan", ddof=0)),
    Protocol("torchvision_dmgan", COCO30K, Fid("inception_torchvision", "dmgan", whole_batches=64)),
    Protocol(
        "adm",
        COCO30K,
        Fid(),
        Inception(splits=6, order="file"),
        note="the Inception Score in splits of 5,000, whatever the number of images",
    ),
    Protocol("fdd", COCO30K, Fid("dinov2_l14", "pillow_bicubic_imagenet")),
    Protocol(
        "coco30k",
        COCO30K,
        Fid(),
        note="zero-shot FID of the diffusion era: codes and references vary, and the choice of "
        "captions alone moves it by 2 to 5 points",
    ),
    # AttnGAN's family.
    Protocol("attngan_cub", CUB, inception=SLIM_BIRDS, retrieval=ATTNGAN_R),
    Protocol("attngan_coco", COCO, inception=COCO_IS, retrieval=ATTNGAN_R),
    *dmgan("cub", CUB, "bird_val.npz: all test images", SLIM_BIRDS),
    *dmgan("coco", COCO, "coco_val.npz: all test images", COCO_IS),
    loop(
        "dfgan_cub",
        dataclasses.replace(CUB, count=29_330, controls=TRUNCATED),
        "bird",
        32,
        inception=SLIM_BIRDS,
        note="ten passes; the reference is said to hold flipped and shifted test images",
    ),
    loop(
        "dfgan_coco",
        dataclasses.replace(COCO, count=40_470, captions="one_pass", controls=TRUNCATED),
        "coco",
        32,
    ),
    loop(
        "galip_cub",
        dataclasses.replace(CUB, count=35_196, resolution=224),
        "bird",
        64,
        clip=GALIP_CLIP,
        note="twelve passes",
    ),
    loop(
        "galip_coco",
        dataclasses.replace(COCO, count=40_470, captions="one_pass", resolution=224),
        "coco",
        64,
        clip=GALIP_CLIP,
    ),
    stylegan_t(64),
    stylegan_t(256),
    *souza("cub", 8_855, 29_330, SLIM_BIRDS),
    *souza("oxford102", 7_034, 11_550, SLIM_FLOWERS),
    Protocol(
        "objgan_coco",
        dataclasses.replace(COCO, count=40_470, captions="one_pass"),
        Fid(reference="the same images of val2014"),
        Inception(order="file"),
        retrieval=Retrieval("damsm", "pool", 100, "other_image", 1),
    ),
    Protocol(
        "opgan_coco",
        COCO,
        Fid(reference="images of val2014, 256 pixels"),
        COCO_IS,
        retrieval=ATTNGAN_R,
        note="no evaluation code was published; FID by TTUR's",
    ),
    Protocol(
        "xmcgan_coco128",
        dataclasses.replace(COCO30K, resolution=128, captions="stored", quantise="none"),
        Fid("inception_keras", "jax_bilinear_antialias", "30,000 random images of val2014"),
        note="mean of three runs",
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
