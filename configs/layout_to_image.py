"""Layout to image: python -m jaxt2i.train --config configs/layout_to_image.py[:preset].

The second stage of text to layout to image (after Liang et al. 2022): a caption, and boxes with
classes, become a picture. The bare command trains `embedded` on the DAMSM of
`python -m jaxt2i.train --config configs/damsm.py:scenes32`. The larger presets start from AttnGAN's
published encoders of COCO, on records with boxes:

    python -m jaxt2i.prepare coco --from DIR --to data
    python -m jaxt2i.convert damsm --from text_encoder100.pth --to weights/damsm_coco
    python -m jaxt2i.convert damsm --from image_encoder100.pth --to weights/damsm_coco
    python -m jaxt2i.train --config configs/layout_to_image.py:coco \\
        --config.data.path=data/jaxt2i_coco --config.init_from=weights/damsm_coco

It is trained on the boxes of its pictures, and draws from those, from rows of yours, or from what a
layout model makes of captions:

    python -m jaxt2i.sample --workdir RUN --conditions rows.jsonl --set psi=0.8 object_psi=0.8
    python -m jaxt2i.sample --workdir RUN --after LAYOUTS --prompts "a cat left of a dog" --num 4

| preset | data | batch | length | seen |
|---|---|---|---|---|
| embedded | scenes, 32 px | 16 | two CPU cores | see its docstring |
| coco | COCO 2014, 256 px | 128 | 200 epochs | nothing is published |
| coco_pod | the same on 32 chips | 512 | 200 epochs | nothing is published |
| visual_genome | Visual Genome, 30 objects, 256 px | 128 | 200 epochs | nothing is published |
"""

from ml_collections import ConfigDict

from jaxt2i.configs import common
from jaxt2i.nn.optim import Adam
from jaxt2i.systems.layout_to_image.method import Model

# Of the procedural scenes.
SCENES = 17
# Of one picture in a step, as traced: with ten objects, and with thirty.
TFLOP, TFLOP30 = 0.575, 0.671


def get_config(preset: str | None = None) -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(PRESETS, preset)


@common.card(
    data="COCO 2014, 82,783 pictures with boxes; python -m jaxt2i.prepare coco",
    weights="the published DAMSM of COCO, converted (see above), and its captions.pickle",
    millions=16.6,
    tflop=TFLOP,
    rate="bfloat16",
    expected="not published, and not yet seen",
)
def coco() -> ConfigDict:
    """COCO 2014, at most ten objects, largest first; LostGAN's optimiser and batch.

    Pictures are stretched to squares and not mirrored: captions say left and right.
    """
    c = common.base()
    c.method = "jaxt2i.systems.layout_to_image"
    c.batch_size, c.total_epochs = 128, 200
    c.data.update(source="records", tokens=18, resolution=256, crop="none")
    c.data.update(tokenizer="captions.pickle", resize="bilinear", objects=10, object_order="area")
    for player in ("g", "d"):
        c.optim[player] = common.section(Adam, lr=1e-4, b1=0.0, b2=0.999)
    c.model = common.section(Model)
    return c


@common.card(
    data="COCO 2014, 82,783 pictures with boxes; python -m jaxt2i.prepare coco",
    weights="the published DAMSM of COCO, converted (see above), and its captions.pickle",
    millions=16.6,
    tflop=TFLOP,
    rate="bfloat16",
    expected="not published, and not yet seen",
)
def coco_pod() -> ConfigDict:
    """COCO on a slice of 32 chips: 16 pictures a chip, each chip's normalised together.

    Learning rates grow with the square root of the batch; not yet seen.
    """
    c = coco()
    c.batch_size = 512
    c.model.norm_group = 16
    c.optim.g.lr = c.optim.d.lr = 2e-4
    return c


@common.card(
    data="62,565 pictures of Visual Genome; python -m jaxt2i.prepare visual_genome/lostgan",
    weights="runs/damsm-visual_genome, which configs/damsm.py:visual_genome trains first",
    millions=12.5,
    tflop=TFLOP30,
    rate="bfloat16",
    expected="not published, and not yet seen",
)
def visual_genome() -> ConfigDict:
    """Visual Genome's 178 classes, three to thirty objects a picture, by LostGAN's split.

    A picture's captions are phrases about its parts.
    """
    c = coco()
    c.perception_from = "runs/damsm-visual_genome"
    c.data.update(tokens=12, objects=30)
    c.model.classes = 178
    return c


def embedded() -> ConfigDict:
    """Two CPU cores, procedural `scenes` of up to six objects at 32 px.

    By the DAMSM that guides the run, the Frechet distance to held-out pictures in its codes falls
    from 1.04 to 0.19 after 8,000 images and 0.12 at the end; R-precision among 100 rises from 0.02
    to 0.76. Of 512 held-out rows the recogniser of scenes finds 42 % of the objects (SOA-I; 92 % in
    real pictures, 30 % where captions are drawn with the layouts of others), 18 % of the colours
    (83 %, 12 %), 10 % of the relations (74 %, 3 %) and 81 % of the places; the layouts that it
    finds have an LQS of 1.90 of 4 (3.76, 1.49). Behind `text_to_layout:embedded`, with captions
    alone, 256 pictures have a SOA-I of 41 % (40 % from real layouts, 29 % from those of others) and
    an LQS of 1.79. Outlines are blurred, and there is a texture of squares. At its median rate the
    run takes 10 minutes (benchmarks/results/layout_to_image_embedded.json).
    """
    c = coco()
    c.total_epochs, c.total_steps, c.batch_size = 0, 2000, 16
    c.log_every_steps = 50
    c.checkpoint_every_steps = c.sample_every_steps = 500
    c.init_from = "runs/damsm-scenes32"
    c.data.update(source="synthetic", corpus="scenes", tokenizer="words", tokens=24)
    c.data.update(resolution=32, resize="lanczos", objects=6)
    c.optim.g.lr = c.optim.d.lr = 4e-4
    c.model.update(text_vocab=136, embed=64, width=64, trunk="small", base=16)
    c.model.trunk_resolution = 0
    # With "one" masks stayed faint.
    c.model.overlap = "sum"
    c.model.update(divide_by_gamma2=True, damsm_weight=1.0, ema_beta=0.99)
    c.model.update(classes=SCENES, g_base=16, d_base=16)
    c.model.update(z_dim=32, local_dim=16, label_dim=32, box_dim=16, text_dim=32)
    # Of 32 pixels D sees 8 and 4 last; objects are read from 16 and 8.
    c.model.update(mask_features=32, d_grid=4, small_stride=2, large_stride=4, roi_size=4)
    return c


def tiny() -> ConfigDict:
    """Compiles in seconds: for smoke tests, not for pictures."""
    c = embedded()
    c.total_steps, c.batch_size = 8, 8
    c.log_every_steps = 1
    c.sample_every_steps = c.checkpoint_every_steps = 4
    c.grid.count, c.score_images, c.init_from = 4, 64, ""
    c.data.update(resolution=16, objects=3)
    # Random encoders guide nobody; the term is there to be run.
    c.model.update(
        weights="random", trunk_resolution=0, embed=16, width=16, base=8, damsm_weight=0.05
    )
    c.model.update(g_base=8, d_base=8, z_dim=8, local_dim=4, label_dim=8, box_dim=4, text_dim=8)
    c.model.update(mask_size=4, mask_features=8, d_grid=8, large_stride=2, ema_beta=0.98)
    return c


PRESETS = {f.__name__: f for f in (embedded, tiny, coco, coco_pod, visual_genome)}
