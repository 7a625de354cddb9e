"""Obj-GAN's box generator (Li et al. 2019): --config configs/obj_gan_boxes.py[:preset].

A caption becomes labelled boxes: the first of Obj-GAN's three systems. The bare command trains
`embedded` on the text encoder of `python -m jaxt2i.train --config configs/damsm.py:scenes32`; the
second is configs/obj_gan_shapes.py, the third configs/obj_gan.py, and text alone goes through all:

    python -m jaxt2i.sample --workdir runs/obj_gan-default \\
        --after runs/obj_gan_boxes-default runs/obj_gan_shapes-default --prompts "a cat and a dog"

The published preset reads with AttnGAN's published encoder of COCO, on records with boxes:

    python -m jaxt2i.prepare coco --from DIR --to data
    python -m jaxt2i.convert damsm --from text_encoder100.pth --to weights/damsm_coco
    python -m jaxt2i.train --config configs/obj_gan_boxes.py:coco \\
        --config.data.path=data/jaxt2i_coco --config.init_from=text=weights/damsm_coco

The published decoder is a pickled network: export its state dict where its code is trusted, and
name its vocabulary of labels and the statistics of the layouts that it was trained on, which a
run's facts.json has (`coco` measures them before its first step):

    python -m jaxt2i.convert obj_gan_boxes --from decoder.safetensors --to weights/obj_gan_boxes
    python -m jaxt2i.sample --config configs/obj_gan_boxes.py:coco \\
        --weights weights/obj_gan_boxes --config.init_from=text=weights/damsm_coco \\
        --config.model.labels=label_word2index.pt --config.model.statistics=RUN/facts.json \\
        --prompts "a man on a horse"

| preset | data | batch | length |
|---|---|---|---|
| embedded | scenes | 32 | two CPU cores, see its docstring |
| coco | COCO 2014 | 1 | 5 passes over the pictures: one over all captions |
| coco_attention | the same, with the paper's attention | 1 | the same |
"""

from ml_collections import ConfigDict

from jaxt2i.configs import common
from jaxt2i.systems.obj_gan_boxes.method import Model, Optim

# Of the procedural scenes.
SCENES = 17
CARD = {
    "data": "COCO 2014, 82,783 pictures with boxes; python -m jaxt2i.prepare coco",
    "weights": "the published text encoder of COCO, converted (see above), and captions.pickle",
    "hours": "a few on a CPU: a decoder of 0.7 M parameters, one caption a step",
    "expected": "not published by itself; pictures from its boxes: FID 24.70, IS 27.32",
}


def get_config(preset: str | None = None) -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(PRESETS, preset)


@common.card(**CARD)
def coco() -> ConfigDict:
    """COCO 2014 as published: one caption a step, ten boxes at most, the largest first.

    The official script goes through all captions ten times; its author advises a tenth of that,
    after which its loss may become infinite (config.model.rho_limit below 1 prevents it). It reads
    captions up to their first comma; here they are read whole.
    """
    c = common.base()
    c.method = "jaxt2i.systems.obj_gan_boxes"
    c.batch_size = 1
    c.total_epochs = 5
    # The GPUs of the time knew no other.
    c.precision = c.matmul_precision = "float32"
    c.data.update(source="records", resolution=256, crop="none", objects=10, object_order="area")
    c.data.update(tokenizer="captions.pickle", tokens=18)
    c.optim = common.section(Optim)
    c.model = common.section(Model)
    return c


@common.card(**CARD | {"expected": "not published"})
def coco_attention() -> ConfigDict:
    """As the paper has it: attention over words, cross-entropy of labels, no slips of the code."""
    c = coco()
    c.model.update(attention=True, label_loss="log", next_xy="next", drawn_label="one_hot")
    c.model.update(first_input="standardised", drop_last="end", rho_limit=0.99)
    return c


def embedded() -> ConfigDict:
    """Two CPU cores, procedural `scenes` of up to six objects; the paper's variant.

    Held-out layouts, object by object: 5.80 to 2.24 nats a box, and 0.01 to 0.51 of the labels
    right, on the encoder of configs/damsm.py:scenes after 484 of its steps
    (benchmarks/results/obj_gan_layouts.json).
    """
    c = coco_attention()
    c.precision, c.matmul_precision = "auto", "default"
    c.init_from = "text=runs/damsm-scenes32"
    c.total_epochs, c.total_steps, c.batch_size = 0, 4000, 32
    c.log_every_steps, c.sample_every_steps, c.checkpoint_every_steps = 100, 1000, 1000
    c.score_images = 512
    c.data.update(source="synthetic", corpus="scenes", tokenizer="words", tokens=24, resolution=64)
    # One place more than there are objects: for the end.
    c.data.update(objects=7)
    c.model.update(text_vocab=136, embed=64, width=64, classes=SCENES, measured=2000)
    # Every object counts alike: the scenes' classes are about equally frequent.
    c.model.update(label_scale=1.0, label_power=0.0, whole_pixels=False)
    c.optim.lr = 3e-3
    return c


def tiny() -> ConfigDict:
    """Compiles in seconds, on a random encoder: for smoke tests."""
    c = embedded()
    c.total_steps, c.batch_size, c.init_from = 8, 8, ""
    c.log_every_steps, c.sample_every_steps, c.checkpoint_every_steps = 1, 4, 4
    c.score_images, c.grid.count = 64, 4
    c.data.update(resolution=16, objects=4)
    c.model.update(weights="random", embed=16, width=16, measured=64)
    # Measured over three seeds: 0.61 to 0.88 nats and 0.27 to 0.30 gained.
    margin = {"box_nll": 0.3, "label_accuracy": 0.15}
    c.promise.update(steps=300, margin=ConfigDict(margin))
    return c


PRESETS = {f.__name__: f for f in (embedded, tiny, coco, coco_attention)}
