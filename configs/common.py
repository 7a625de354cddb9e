"""What every configuration has: the run, the data, the mesh.

`base()` is the full list of top-level keys; a system's file sets `model` and `optim` on top, from
the system's own settings classes, where every default and every docstring stands.
`python -m jaxt2i.train --config FILE[:preset] --help` prints all of it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict, FieldReference

# TFLOP/s of one A100 at 30 % of its datasheet's peak, an assumption, by what its products are of.
RATES = {"bfloat16": 94.0, "tensorfloat32": 47.0, "float32": 5.9}


@dataclasses.dataclass(frozen=True)
class Collection:
    """A data set of the survey that none of these systems has published numbers of.

    Attributes:
      about: what it holds.
      prepare: its name for python -m jaxt2i.prepare.
      share: of the length that a system trains on COCO.
      crop: of training's pictures.
      language: of the captions, where it has several.
      words: of a caption, for encoders that read words.
    """

    about: str
    prepare: str
    share: float = 1.0
    crop: str = "random"
    language: str = ""
    words: int = 18


COLLECTIONS = {
    "coco_stuff": Collection(
        "COCO-Stuff, 118,287 pictures of COCO 2017 with its captions; boxes and masks stay unused",
        "coco_stuff",
        words=15,
    ),
    "visual_genome": Collection(
        "Visual Genome, 108,077 pictures, each with dozens of phrases about parts of it",
        "visual_genome",
        words=12,
    ),
    "ade20k": Collection(
        "ADE20K, 20,210 pictures; captions are yours, else composed of scene and objects",
        "ade20k",
        share=0.2,
    ),
    "fashiongen": Collection(
        "FashionGen, 260,490 pictures of clothes on white, seen whole, with their descriptions",
        "fashiongen",
        crop="centre",
        words=40,
    ),
    "multi30k": Collection(
        "Multi30K, 29,000 pictures with five English captions each",
        "multi30k/task2",
        share=0.2,
        language="en",
    ),
    "multi30k_de": Collection(
        "Multi30K, 29,000 pictures with five German captions each",
        "multi30k/task2",
        share=0.2,
        language="de",
    ),
}


def base() -> ConfigDict:
    """The keys that every method shares, with the defaults of a small run."""
    c = ConfigDict()
    # The system: dotted path of a module with build(config), or of a folder with its method.py.
    c.method = ""
    # Of the initial weights and of every random draw.
    c.seed = 0
    # Examples a step, over all devices.
    c.batch_size = 16
    # The length of the run: steps win over images, images over epochs.
    c.total_steps = 0
    # The length of the run in real images, where total_steps is 0.
    c.total_images = 0
    # The length of the run in passes through the data, where the other two are 0.
    c.total_epochs = 0
    # Steps between two lines of metrics.
    c.log_every_steps = 50
    # Steps between two checkpoints.
    c.checkpoint_every_steps = 1000
    # Steps between two grids of samples and scores.
    c.sample_every_steps = 1000
    # How many of the newest checkpoints stay.
    c.keep_checkpoints = 3
    # Checkpoints of steps divisible by this stay for good; 0: none.
    c.keep_period_steps = 0
    # Checkpoints are made after these steps, too, and stay for good.
    c.keep_at_steps = ()
    # The same, after so many passes through the data.
    c.keep_at_epochs = ()
    # The score whose best checkpoint stays for good (--step best); "": the system's first.
    c.best_by = ""
    # An earlier run's work directory, or converted weights: matched by name and shape. RUN@best or
    # RUN@STEP names a checkpoint, else it is the newest; NET=RUN,NET=RUN each network's own.
    c.init_from = ""
    # Networks that init_from trained and that this run is to go on without.
    c.init_without = ()
    # Written by the run: where it keeps the frozen networks that init_from trained.
    c.inherited = ""
    # A run of configs/clip.py or configs/damsm.py on the same kind of data: its networks become the
    # text tower and the guide, its tokenizer this run's. They are copied into the work directory.
    c.perception_from = ""
    # Micro-batches whose gradients are averaged before an update. "auto": the fewest that fit the
    # devices' memory by an estimate, or the next larger number where the first step finds none all
    # the same; said when the run starts, and kept with it.
    c.accumulate = FieldReference(1, field_type=object)
    # Leave out updates that are not finite, and count them; False: the run stops there.
    c.skip_nonfinite = False
    # End a run that learns nothing any more (health/* in its metrics) and keep its checkpoints
    # from before; False: say it and go on.
    c.stop_when_dead = True
    # Activations: "float32", "bfloat16", or "auto" (bfloat16 on TPU and GPU).
    c.precision = "auto"
    # Activations of frozen text towers, guides and feature networks; "": as precision.
    c.perception_precision = ""
    # Products of float32 arrays: "float32", "tensorfloat32", or "default" (on TPUs bfloat16, on
    # GPUs TF32): faster, and the third digit differs.
    c.matmul_precision = "default"
    # Ordered (regular expression on a network's name, "full" | "products" | "dots_no_batch"): its
    # blocks keep nothing for the backward pass, or the results of products with weights alone.
    c.remat = ()
    # "bfloat16": parameters are rounded to it, their gradients too. The state keeps them in float32
    # all the same, or without masters in bfloat16, every update rounded stochastically.
    c.param_dtype = "float32"
    # Keep rounded parameters in float32 beside; see param_dtype.
    c.masters = True
    c.mesh = ConfigDict(
        {
            # Devices along the batch; -1: all that the other axes leave.
            "data": -1,
            # Devices over which parameters are split, along the batch too.
            "fsdp": 1,
            # Devices over which layers are split.
            "tensor": 1,
            # Smaller arrays are not split by fsdp, MB.
            "fsdp_min_mb": 4.0,
        }
    )
    # Ordered (regular expression on an array's path, "replicate" | "fsdp" | "tensor").
    c.sharding = ()
    c.data = ConfigDict(
        {
            # "synthetic", "folder", "records" (of jaxt2i.prepare), "webdataset" (of img2dataset) or
            # "hdf5" (pictures beside their captions' embeddings, of GAN-INT-CLS).
            "source": "synthetic",
            # Of the synthetic source: "blooms", "scenes" or "mixed".
            "corpus": "blooms",
            # The folder of the other sources.
            "path": "",
            # What is trained on.
            "split": "train",
            # What grids and scores are made of.
            "eval_split": "val",
            # Of the order and of what is random in the data.
            "seed": 0,
            # Height and width of pictures, pixels.
            "resolution": 32,
            # "centre" cuts what is longer; "pad" shows all of a picture, on the background; "none"
            # stretches it; "random", "random_stretched"; "random_op_gan", whose boxes follow as in
            # OP-GAN's code.
            "crop": "centre",
            # Behind transparent parts of pictures, and beside padded ones: "white", "#808080", ...
            "background": "white",
            # Left and right of training's examples: "crop" leaves them to the random crops, half of
            # which are mirrored whatever a caption says; "unless_sided" mirrors half of the
            # examples, boxes and masks with them, but none whose caption says left or right.
            "mirror": "crop",
            # How much larger than the crop the picture is made for the random ones.
            "margin": 76 / 64,
            # Filter of Pillow's: "lanczos", "bilinear", ...
            "resize": "lanczos",
            # How training's JPEGs are decoded; held-out ones always are exactly. "exact": every
            # pixel, then the filter above. "draft": no larger than twice what is needed, half a
            # level of 255 from exact. "native": by TensorFlow, no larger than what is needed and
            # averaged to it, a few levels from exact: in half the time and without Python, but
            # anew every time, so not for sets that fit into cache_mb.
            "decode": "draft",
            # Memory for resized pictures: small sets are decoded once.
            "cache_mb": 256.0,
            # Folder of the pictures' latents, which python -m jaxt2i.prepare latents writes; "":
            # training asks the autoencoder in every step, where there is one.
            "latents": "",
            # Pixels of a picture along one of its latent.
            "latent_factor": 8,
            # "mini", "words", "clip", or a file or folder; "own_pieces" or "own_words" (for DAMSM):
            # learned from the training captions when the run starts, and kept with it.
            "tokenizer": "mini",
            # Positions of a caption; longer ones are cut.
            "tokens": 32,
            # Width of captions' embeddings that the data bring ("hdf5"); 0: none are read.
            "text_width": 0,
            # Captions in these languages alone, such as ("de",); none: in any.
            "languages": (),
            # Crop to the surroundings of a picture's box, where it has one (CUB).
            "around_box": True,
            # Objects of a picture at most, for systems that see objects.
            "objects": 8,
            # Relations between them at most, for systems that read relations.
            "relations": 8,
            # How many attributes a picture may have (CUB: 312); 0: none are read.
            "attributes": 0,
            # The same of each of its objects (Visual Genome).
            "object_attributes": 0,
            # "area", the largest first, or "annotation".
            "object_order": "area",
            # Of the objects' masks, pixels.
            "mask_resolution": 16,
            # Captions of a picture at most, for systems that see all of them.
            "captions": 10,
            # Training's batches: "objects": of pictures with equally many objects; "": of any.
            "batches": "",
            # More of rare classes: "repeat" or "balanced".
            "rare": "",
            # Of "repeat": classes in a smaller share of pictures are repeated.
            "rare_threshold": 0.001,
            # Of the procedural scenes: which share of training's pictures with a ball, butterfly,
            # cloud, house, mushroom or tree stays; other pictures stand in for the rest.
            "scarce": 1.0,
            # A fixed list of held-out pictures and captions, as jaxt2i.prepare --list writes it.
            "list": "",
            "web": ConfigDict(
                {
                    # Several collections: ((path, weight), ...); none: `path` alone.
                    "mix": (),
                    # Shortest side of pictures that are kept, pixels.
                    "min_side": 0,
                    # Longer side over the shorter at most; 0: any.
                    "max_aspect": 0.0,
                    # Shortest caption that is kept, characters.
                    "min_chars": 0,
                    # Longest caption that is kept, characters; 0: any.
                    "max_chars": 0,
                    # ((column, least, most), ...), such as (("similarity", 0.28, 9.0),).
                    "scores": (),
                    # Values of the column LANGUAGE or language that are kept.
                    "languages": (),
                    # Parts of a batch with files of their own.
                    "lanes": 8,
                    # Files that are mixed in each lane.
                    "window": 4,
                    # Share of the files that is held out.
                    "held_out": 0.01,
                    # Held-out examples that grids, scores and evaluations use at most, to whole
                    # files; 0: all. What is trained on does not depend on it.
                    "held_out_most": 50_000,
                    # What was mixed before, ((position, ((path, weight), ...)), ...): filled in by
                    # a run that is continued with another `mix`.
                    "past": (),
                }
            ),
            # Threads that read and decode.
            "workers": 2,
            # host:port of the dispatcher of a tf.data service, whose workers make training's
            # batches (python -m jaxt2i.data.serve); "": they are made here.
            "service": "",
        }
    )
    c.grid = ConfigDict(
        {
            # Pictures of a grid of samples.
            "count": 16,
            # Their prompts; none: held-out captions.
            "prompts": (),
        }
    )
    c.profile = ConfigDict(
        {
            # First step recorded for XProf, counted from 1, with a summary in WORKDIR/profile; 0:
            # none.
            "start_step": 0,
            # How many steps are recorded.
            "steps": 10,
            # Whether Python's calls are recorded too.
            "python_tracer": False,
        }
    )
    # Held-out examples behind each score.
    c.score_images = 256
    # What this configuration promises to improve, and tests hold it to.
    c.promise = ConfigDict(
        {
            # In how many steps.
            "steps": 0,
            # {score: by how much}.
            "margin": ConfigDict(),
        }
    )
    c.model = ConfigDict()
    c.optim = ConfigDict()
    return c


def section(cls: type, **changes: Any) -> ConfigDict:
    """A section of the configuration: every field of a settings class, with its default.

    Args:
      cls: a dataclass whose fields all have defaults.
      changes: what differs from them.

    Raises:
      TypeError: for a change that is no field.
    """
    return ConfigDict(dataclasses.asdict(cls(**changes)))


def emoji(c: ConfigDict, resolution: int, perception: str) -> ConfigDict:
    """Real pictures for a preset of two CPU cores: what `python -m jaxt2i.prepare emoji` makes.

    Args:
      c: the preset, changed in place.
      resolution: of the pictures, pixels.
      perception: "clip" or "damsm", whose preset of that name is trained first; "": none.
    """
    c.data.update(
        source="records",
        path="data/jaxt2i_emoji/white",
        languages=("en",),
        resolution=resolution,
        crop="centre",
        resize="lanczos",
    )
    preset = "emoji" if resolution == 32 else f"emoji{resolution}"
    c.perception_from = perception and f"runs/{perception}-{preset}"
    return c


def card(
    *,
    data: str,
    weights: str,
    expected: str,
    hours: str = "",
    millions: float = 0.0,
    tflop: float = 0.0,
    rate: str = "float32",
) -> Callable:
    """Adds to a preset's docstring what it needs, costs and gives.

    Args:
      data: the data set and how it comes.
      weights: what has to be there before.
      expected: the published score, "unknown" or "not yet seen".
      hours: the published cost in words; "": what one A100 takes, from the next three.
      millions: of pictures that it trains for.
      tflop: of one picture in a step, all players together.
      rate: a key of `RATES`.

    Returns:
      preset -> preset.
    """
    if not hours:
        count = millions * 1e6 * tflop / RATES[rate] / 3600
        hours = (
            f"about {count:,.0f} on an A100 ({millions:g} M pictures x {tflop:g} TFLOP, at "
            f"{RATES[rate]:g} TFLOP/s)"
        )

    def add(preset: Callable[[], ConfigDict]) -> Callable[[], ConfigDict]:
        about = (preset.__doc__ or "").strip()
        preset.__doc__ = (
            f"{about}\n\nData: {data}.\nWeights: {weights}.\nHours: {hours}.\nExpected: {expected}."
        )
        preset.published = True
        return preset

    return add


def others(
    make: Callable[[str, Collection], ConfigDict],
    *,
    weights: Callable[[str, Collection], str],
    millions: float,
    tflop: float,
    rate: str = "float32",
    names: tuple[str, ...] = tuple(COLLECTIONS),
) -> dict[str, Callable[[], ConfigDict]]:
    """{name: preset} of a system on `COLLECTIONS`, with its settings of COCO.

    Args:
      make: (name, collection) -> the configuration, whose length and data are set here.
      weights: (name, collection) -> what has to be there before.
      millions: of pictures that the system trains for on COCO.
      tflop: as for `card`.
      rate: as for `card`.
      names: of the collections.
    """

    def on(name: str, them: Collection) -> Callable[[], ConfigDict]:
        length = round(millions * them.share, 1)

        def preset() -> ConfigDict:
            c = make(name, them)
            c.total_epochs, c.total_images = 0, int(length * 1e6)
            c.data.update(source="records", crop=them.crop)
            c.data.languages = (them.language,) if them.language else ()
            return c

        preset.__name__ = name
        preset.__doc__ = "Not published: COCO's settings, and a length that is ours."
        records = f"{them.about}; python -m jaxt2i.prepare {them.prepare}"
        told = {"data": records, "weights": weights(name, them), "expected": "unknown"}
        return card(**told, millions=length, tflop=tflop, rate=rate)(preset)

    return {name: on(name, COLLECTIONS[name]) for name in names}


def after_damsm(name: str, them: Collection) -> str:
    """What a preset that reads through the DAMSM of its data needs."""
    return f"runs/damsm-{name}, which configs/damsm.py:{name} trains first"


def choose(presets: dict[str, Callable[[], ConfigDict]], name: str | None) -> ConfigDict:
    """The preset that `FILE:NAME` asks for; the first one when no name is given.

    Raises:
      ValueError: names the known presets.
    """
    name = name or next(iter(presets))
    if name not in presets:
        raise ValueError(f"no preset {name!r} here; known: {', '.join(presets)}")
    return presets[name]()
