"""Obj-GAN's shape generator (Li et al. 2019): --config configs/obj_gan_shapes.py[:preset].

Labelled boxes become masks: the second of Obj-GAN's three systems, after configs/obj_gan_boxes.py,
whose docstring shows the chain. It reads no captions and no earlier run. `coco` sees through
torchvision's VGG19 with batch norms, which is downloaded or named by config.model.vgg_weights:

    python -m jaxt2i.prepare coco --from DIR --to data
    python -m jaxt2i.train --config configs/obj_gan_shapes.py:coco \\
        --config.data.path=data/jaxt2i_coco

The published generator is read and drawn from, with the boxes of each row:

    python -m jaxt2i.convert obj_gan_shapes --from netG_epoch_60.pth --to weights/obj_gan_shapes
    python -m jaxt2i.sample --config configs/obj_gan_shapes.py:coco \\
        --weights weights/obj_gan_shapes --conditions rows.jsonl

| preset | data | batch | length |
|---|---|---|---|
| embedded | scenes, masks of 32 px | 8 | two CPU cores, see its docstring |
| coco | COCO 2014, masks of 64 px | 40 | 60 epochs |
"""

from ml_collections import ConfigDict

from jaxt2i.configs import common
from jaxt2i.systems.obj_gan_shapes.method import Model, Optim

# Of the procedural scenes.
SCENES = 17
# Of one picture in a step, as traced.
TFLOP = 0.45


def get_config(preset: str | None = None) -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(PRESETS, preset)


@common.card(
    data="COCO 2014, 82,783 pictures with masks; python -m jaxt2i.prepare coco",
    weights="torchvision's VGG19 with batch norms (config.model.vgg_weights)",
    millions=5.0,
    tflop=TFLOP,
    expected="not published by itself; pictures from its masks in given boxes: FID 22.67",
)
def coco() -> ConfigDict:
    """COCO 2014 as published: ten objects at most, masks of 64 pixels."""
    c = common.base()
    c.method = "jaxt2i.systems.obj_gan_shapes"
    c.batch_size = 40
    c.total_epochs = 60
    # The GPUs of the time knew no other.
    c.precision = c.matmul_precision = "float32"
    c.data.update(source="records", resolution=64, crop="none", mask_resolution=64)
    c.data.update(objects=10, object_order="annotation")
    c.optim = common.section(Optim)
    c.model = common.section(Model)
    return c


def embedded() -> ConfigDict:
    """Two CPU cores, procedural `scenes` of up to six objects, masks of 32 px, no VGG.

    Overlap of drawn and real shapes in held-out boxes: 0.08 at first, 0.50 after 200 steps, 0.56
    after 400 and 0.54 after 600, as much as filled boxes have (0.54). Outlines take longer than
    these minutes (benchmarks/results/obj_gan_layouts.json).
    """
    c = coco()
    c.precision, c.matmul_precision = "auto", "default"
    c.total_epochs, c.total_steps, c.batch_size = 0, 600, 8
    c.log_every_steps, c.sample_every_steps, c.checkpoint_every_steps = 25, 200, 200
    c.score_images = 128
    c.data.update(source="synthetic", corpus="scenes", resolution=64, mask_resolution=32)
    c.data.update(objects=6, object_order="area")
    c.model.update(classes=SCENES, width=8, d_width=32, perceptual="masks", last_pixel=True)
    c.model.update(second_order="reversed", empty_places="own", ema_beta=0.98)
    c.model.perceptual_weight = 100.0
    c.optim.update(lr=2e-3, restart=False, decay=1.0, clip=0.0)
    return c


def tiny() -> ConfigDict:
    """Compiles in seconds: for smoke tests."""
    c = embedded()
    c.total_steps, c.batch_size = 8, 8
    c.log_every_steps, c.sample_every_steps, c.checkpoint_every_steps = 1, 4, 4
    c.score_images, c.grid.count = 64, 4
    c.data.update(resolution=16, mask_resolution=16, objects=3)
    c.model.update(width=4, d_width=8)
    # Measured: 0.25 gained.
    c.promise.update(steps=100, margin=ConfigDict({"iou": 0.1}))
    return c


PRESETS = {f.__name__: f for f in (embedded, tiny, coco)}
