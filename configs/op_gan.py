"""OP-GAN (Hinz et al. 2022): python -m jaxt2i.train --config configs/op_gan.py[:preset].

AttnGAN with a pathway for every object: the generator is told which objects are to be where, and
the discriminators look into each box. The bare command trains `embedded` on the DAMSM of
`python -m jaxt2i.train --config configs/damsm.py:scenes`. The published preset starts from
AttnGAN's published encoders of COCO, on records with boxes:

    python -m jaxt2i.prepare coco --from DIR --to data
    python -m jaxt2i.convert damsm --from text_encoder100.pth --to weights/damsm_coco
    python -m jaxt2i.convert damsm --from image_encoder100.pth --to weights/damsm_coco
    python -m jaxt2i.train --config configs/op_gan.py:coco \\
        --config.data.path=data/jaxt2i_coco --config.init_from=weights/damsm_coco

The published generator is read and drawn from, with the layout of each row:

    python -m jaxt2i.convert op_gan --from op-gan.pth --to weights/op_gan_coco
    python -m jaxt2i.sample --config configs/op_gan.py:coco --weights weights/op_gan_coco \\
        --config.init_from=weights/damsm_coco --config.data.tokens=20 --conditions rows.jsonl

Training cuts captions to 12 words, the official sampler to 20. Its `--set jitter=true` moves boxes.

| preset | data | batch | epochs | published IS, FID, SOA-C, SOA-I |
|---|---|---|---|---|
| embedded | scenes, 64 px | 16 | two CPU cores | see its docstring |
| no_pathway | the same, without objects | 16 | the same | see its docstring |
| coco | COCO 2014, 256 px | 16 | 120 | 27.88, 24.70, 35.85 %, 50.47 % |
| coco_pod | the same on 16 chips | 256 | 120 | not published |
"""

from ml_collections import ConfigDict

from jaxt2i.configs import attngan, common
from jaxt2i.systems.op_gan.method import Model

# Of the procedural scenes, and one more for none.
SCENES = 18
# Of one picture in a step, all ten places filled, as traced; those that no picture fills cost none.
TFLOP = 1.05


def get_config(preset: str | None = None) -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(PRESETS, preset)


@common.card(
    data="COCO 2014, 82,783 pictures with boxes; python -m jaxt2i.prepare coco",
    weights="the published DAMSM of COCO, converted (see above), and its captions.pickle",
    millions=9.9,
    tflop=TFLOP,
    expected="IS 27.88, FID 24.70, SOA-C 35.85 %, SOA-I 50.47 %",
)
def coco() -> ConfigDict:
    """COCO 2014 as published: boxes by area, at most ten, batches of equally many objects.

    The original's batches have 32 pictures without objects and 12 with eight or more; here all
    have 16. Pictures are stretched to 268 pixels, of which 256 are shown, and boxes follow as its
    code moves them.
    """
    c = attngan.published(16, 120)
    c.method = "jaxt2i.systems.op_gan"
    c.data.update(tokens=12, crop="random_op_gan", margin=268 / 256)
    c.data.update(objects=10, object_order="area", batches="objects")
    c.model = common.section(Model)
    return c


@common.card(
    data="COCO 2014, 82,783 pictures with boxes; python -m jaxt2i.prepare coco",
    weights="the published DAMSM of COCO, converted (see above), and its captions.pickle",
    millions=9.9,
    tflop=TFLOP,
    rate="bfloat16",
    expected="not published, and not yet seen",
)
def coco_pod() -> ConfigDict:
    """COCO on a slice of 16 chips: 16 pictures a chip, each chip's normalised together.

    Learning rates grow with the square root of the batch; not yet seen. Blocks and objects are
    computed again in the backward pass. Kept, they would take 31.4 GiB a chip in all; so it is 8.4
    of a v5e's 15.75 (benchmarks/results/plan_op_gan_coco_pod_v5e_4x4.json).
    """
    c = coco()
    c.precision = "auto"
    c.remat = ((".*", "full"),)
    c.batch_size = 256
    c.model.norm_group = 16
    # Pairs and masks that do not reach over the borders of chips.
    c.model.update(attention_mask="own", wrong_pairs="roll")
    c.optim.g.lr = c.optim.d.lr = 8e-4
    return c


def embedded() -> ConfigDict:
    """Two CPU cores, procedural `scenes` of up to six objects, three stages of 16, 32 and 64 px.

    By the DAMSM that guides the run, the Frechet distance to held-out pictures in its codes falls
    from 1.69 to 0.33 after 8,000 images and 0.11 at the end; R-precision among 100 rises from 0.01
    to 0.43. Of 512 held-out layouts the recogniser of scenes finds 47 % of the objects (SOA-I; 91 %
    in real pictures), and where it finds them their boxes overlap with the given ones by 0.59
    (0.78). Objects stand in their boxes in rough shape; 20 % have their colour. One core took 38
    minutes (benchmarks/results/op_gan_embedded.json); two of their own make 29 pictures a second,
    18 minutes (benchmarks/results/step_op_gan_two_cores_cpu.json).
    """
    c = attngan.small(coco())
    c.init_from = "runs/damsm-scenes"
    c.total_steps = 2000
    c.data.update(corpus="scenes", tokens=24, resolution=64, crop="none")
    c.data.update(objects=6, batches="objects")
    c.model.update(classes=SCENES, g_base=12, d_base=12, local_dim=8, layout_size=8)
    # All at once: one by one takes thirteen times as long on a CPU core
    # (benchmarks/results/step_op_gan_cpu.json).
    c.model.update(grid_corners=False, object_loop="all")
    return c


def no_pathway() -> ConfigDict:
    """`embedded` blind to objects: as many pictures for AttnGAN's part alone.

    They take a third of the time. The recogniser then finds 22 % of the objects instead of 47 %,
    and 1 % of the relations instead of 18 %. Frechet distances are no worse: 0.088 in DAMSM codes
    instead of 0.106, and not apart in the recogniser's (benchmarks/results/ablations_op_gan.json).
    """
    c = embedded()
    c.data.batches = ""
    c.model.update(op=(False,) * 3, d_op=(False,) * 3, wrong_layout="none")
    return c


def tiny() -> ConfigDict:
    """Compiles in seconds: for smoke tests, not for pictures."""
    c = attngan.smoke(embedded())
    c.data.update(resolution=32, objects=3)
    c.model.update(op=(True, True), d_op=(False, True), local_dim=4)
    c.promise.update(steps=150, margin=ConfigDict({"frechet": 0.008}))
    return c


PRESETS = {f.__name__: f for f in (embedded, no_pathway, tiny, coco, coco_pod)}
