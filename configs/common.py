"""What every configuration has: the run, the data, the mesh.

`base()` is the full list of top-level keys; a method's file sets `model` and `optim` on top.
"""

from collections.abc import Callable

from ml_collections import ConfigDict


def base() -> ConfigDict:
    """The keys that every method shares, with the defaults of a small run."""
    c = ConfigDict()
    c.method = ""
    c.seed = 0
    c.batch_size = 16
    # The length of the run: steps win over images, images over epochs.
    c.total_steps = 0
    c.total_images = 0
    c.total_epochs = 0
    c.log_every_steps = 50
    c.checkpoint_every_steps = 1000
    c.sample_every_steps = 1000
    c.keep_checkpoints = 3
    c.keep_period_steps = 0
    # An earlier run's work directory, or converted weights: matched by name and shape.
    c.init_from = ""
    # Micro-batches whose gradients are averaged before an update.
    c.accumulate = 1
    c.skip_nonfinite = False
    # Activations: "float32", "bfloat16", or "auto" (bfloat16 on TPU and GPU).
    c.precision = "auto"
    # Ordered (regular expression on a network's name, "full" | "products" | "dots_no_batch"): its
    # blocks keep nothing for the backward pass, or the results of products with weights alone.
    c.remat = ()
    # "bfloat16": parameters are rounded to it, their gradients too. The state keeps them in float32
    # all the same, or without masters in bfloat16, every update rounded stochastically.
    c.param_dtype = "float32"
    c.masters = True
    c.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1, "fsdp_min_mb": 4.0})
    # Ordered (regular expression on an array's path, "replicate" | "fsdp" | "tensor").
    c.sharding = ()
    c.data = ConfigDict(
        {
            # "synthetic", "folder", "records" (of jaxt2i.prepare) or "webdataset" (of img2dataset).
            "source": "synthetic",
            "corpus": "blooms",
            "path": "",
            "split": "train",
            "eval_split": "val",
            "seed": 0,
            "resolution": 32,
            # "centre", "none", "random" or "random_stretched", and how much larger than the crop
            # the picture is made for the random ones.
            "crop": "centre",
            "margin": 76 / 64,
            "resize": "lanczos",
            # How training's JPEGs are decoded; held-out ones always are exactly. "exact": every
            # pixel, then the filter above. "draft": no larger than twice what is needed, half a
            # level of 255 from exact. "native": by TensorFlow, no larger than what is needed and
            # averaged to it, a few levels from exact: in half the time and without Python, but
            # anew every time, so not for sets that fit into cache_mb.
            "decode": "draft",
            # Memory for resized pictures: small sets are decoded once.
            "cache_mb": 256.0,
            "tokenizer": "mini",
            "tokens": 32,
            # Captions in these languages alone, such as ("de",); none: in any.
            "languages": (),
            # Crop to the surroundings of a picture's box, where it has one (CUB).
            "around_box": True,
            "objects": 8,
            # "area", the largest first, or "annotation".
            "object_order": "area",
            "mask_resolution": 16,
            "captions": 10,
            # More of rare classes: "repeat" (threshold: share of pictures) or "balanced".
            "rare": "",
            "rare_threshold": 0.001,
            # A fixed list of held-out pictures and captions, as jaxt2i.prepare --list writes it.
            "list": "",
            "web": ConfigDict(
                {
                    # Several collections: ((path, weight), ...); none: `path` alone.
                    "mix": (),
                    "min_side": 0,
                    "max_aspect": 0.0,
                    "min_chars": 0,
                    "max_chars": 0,
                    # ((column, least, most), ...), such as (("similarity", 0.28, 9.0),).
                    "scores": (),
                    # Values of the column LANGUAGE or language that are kept.
                    "languages": (),
                    # Parts of a batch with files of their own, and files mixed in each.
                    "lanes": 8,
                    "window": 4,
                    # Share of the files that is held out.
                    "held_out": 0.01,
                }
            ),
            "workers": 2,
            # host:port of the dispatcher of a tf.data service, whose workers make training's
            # batches (python -m jaxt2i.data.serve); "": they are made here.
            "service": "",
        }
    )
    # Grids of samples: how many prompts, which ones (none: held-out captions).
    c.grid = ConfigDict({"count": 16, "prompts": ()})
    # Steps recorded for XProf, with a summary in WORKDIR/profile; the first one, counted from 1
    # (0: none), how many, and whether Python's calls are recorded too.
    c.profile = ConfigDict({"start_step": 0, "steps": 10, "python_tracer": False})
    # Held-out examples behind each score.
    c.score_images = 256
    # What this configuration promises to improve, by how much, in how many steps; tests hold it
    # to that: {score: margin}.
    c.promise = ConfigDict({"steps": 0, "margin": ConfigDict()})
    c.model = ConfigDict()
    c.optim = ConfigDict()
    return c


def choose(presets: dict[str, Callable[[], ConfigDict]], name: str | None) -> ConfigDict:
    """The preset that `FILE:NAME` asks for; the first one when no name is given.

    Raises:
      ValueError: names the known presets.
    """
    name = name or next(iter(presets))
    if name not in presets:
        raise ValueError(f"no preset {name!r} here; known: {', '.join(presets)}")
    return presets[name]()
