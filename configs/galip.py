"""GALIP (Tao et al. 2023): python -m jaxt2i.train --config configs/galip.py[:preset].

The bare command trains `embedded`: the published structure at 32 px on procedural flowers and
birds, around the shipped mini CLIP, no download. The other presets are the published
configurations around OpenAI's CLIP ViT-B/32, which is fetched once or read from
--config.model.clip_weights=FILE, and the same system around other CLIPs and at other sizes.
Captions in German or in several languages: --config.model.perception=mclip_b32 with
--config.data.tokenizer=DIR, which holds the tokenizer.json of M-CLIP/XLM-Roberta-Large-Vit-B-32.

| preset | data | batch | length | published FID |
|---|---|---|---|---|
| embedded | blooms, 32 px | 16 | 10 minutes on 2 CPU cores | see its docstring |
| cub | CUB-200-2011 | 512 | up to 1,500 epochs | 10.08, CLIP score 0.3164 |
| oxford102 | Oxford-102 | 512 | 1,500 epochs | not published |
| coco | COCO 2014 | 512 | about 1,000 epochs on 8 GPUs | 5.85, released checkpoint 5.01 |
| cc3m | CC3M | 512 | about 100 epochs (not published) | not published |
| cc12m | CC12M | 512 | about 30 epochs | 12.54 on COCO, zero-shot |
| six more, as in common.COLLECTIONS | theirs | 512 | 100 or 20 M pictures | unknown |
| coco_b16, coco_l14 | COCO 2014 | 512 | as coco | not published: another trunk |
| coco_256, coco_512 | COCO 2014 | 512 | as coco | not published: another size |

Pictures are 224 px, drawn beside real ones of 256. The global batch matters: an independent run
with 32 reached 8.4 on COCO and 23 on CUB. FID is the repository's own protocol (torchvision's
Inception, 30,000 pictures). All hyper-parameters are those of the official scripts; data sets
without a published configuration take the same ones, and a length that is ours: COCO's published
one is 83 M pictures. How long that takes is said by python -m jaxt2i.plan, for any machine.

Records of the data sets come from python -m jaxt2i.prepare NAME --from DIR --to data, NAME as the
preset's; then --config.data.path=data/jaxt2i_NAME. A folder of yours: --config.data.source=folder.
CC3M and CC12M are read as img2dataset wrote them: --config.data.path=DIR.
"""

from ml_collections import ConfigDict

from jaxt2i.configs import common
from jaxt2i.nn.optim import Adam
from jaxt2i.systems.galip.method import Model


def get_config(preset: str | None = None) -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(PRESETS, preset)


def published(epochs: int) -> ConfigDict:
    """What every published configuration shares: 8 processes of 64, constant learning rates.

    Published in float16 with loss scaling; bfloat16, which "auto" means on TPUs and GPUs, needs
    none.
    """
    c = common.base()
    c.method = "jaxt2i.systems.galip"
    c.batch_size = 512
    c.accumulate = "auto"
    c.total_epochs = epochs
    c.seed = 100
    c.data.update(source="records", tokenizer="clip", tokens=77, resolution=256, crop="random")
    c.data.resize = "bilinear"
    c.optim.g = common.section(Adam, lr=1e-4, b2=0.9)
    c.optim.d = common.section(Adam, lr=4e-4, b2=0.9)
    c.model = common.section(Model, mismatch_group=64)
    return c


def embedded() -> ConfigDict:
    """Two CPU cores, procedural `blooms` at 32 px, around the shipped mini CLIP.

    The Frechet distance to held-out pictures in mini-CLIP features falls from 1.7 to 0.19 after
    8,000 images and to 0.13 at the end; R-precision among 100 rises from 0.01 to 0.80. Learning
    rates are five and two and a half times the published ones, and G is averaged.
    """
    c = published(0)
    c.model.mismatch_group = 0
    c.total_steps = 3000
    c.batch_size, c.accumulate = 16, 1
    c.log_every_steps = 50
    c.checkpoint_every_steps = 500
    c.sample_every_steps = 500
    c.data.update(source="synthetic", corpus="blooms", tokenizer="mini", tokens=32, resolution=32)
    c.optim.g.lr, c.optim.d.lr = 5e-4, 1e-3
    c.model.update(
        perception="mini",
        g_base=16,
        d_base=16,
        image_size=0,
        prompts=2,
        taps=(0, 1, 2),
        clip_input="clip",
        ema_images=2000.0,
    )
    return c


def emoji(resolution: int = 32) -> ConfigDict:
    """Emoji at 32 px, two CPU cores, through a CLIP that was trained on them.

    python -m jaxt2i.prepare emoji and configs/clip.py:emoji come first. On one core it took 36
    minutes: colours follow the name, people have shoulders, faces are round with eyes, all of it
    rough. A CLIP of another seed and shape finds the group of 27 % of the pictures (51 % of real
    ones, 16 % by chance; benchmarks/results/galip_emoji.json).
    """
    c = common.emoji(embedded(), resolution, "clip")
    c.total_steps = 4000
    return c


def emoji64() -> ConfigDict:
    """The same at 64 px, wider, for one GPU, after configs/clip.py:emoji64; not yet seen."""
    c = emoji(64)
    c.batch_size = 64
    c.total_steps = 20_000
    c.model.update(g_base=32, d_base=32)
    return c


def tiny() -> ConfigDict:
    """Compiles in seconds: for smoke tests, not for pictures."""
    c = embedded()
    c.total_steps = 8
    c.batch_size = 8
    c.log_every_steps = 1
    c.sample_every_steps = 4
    c.checkpoint_every_steps = 4
    c.grid.count = 4
    c.score_images = 64
    c.data.resolution = 16
    c.model.update(g_base=4, d_base=4, z_dim=16, bridge_blocks=1, ema_images=500.0)
    # Measured: 0.67 gained after 100 steps, 1.17 after 200.
    c.promise.update(steps=150, margin=ConfigDict({"frechet": 0.4}))
    return c


@common.card(
    data="CUB-200-2011, 8,855 pictures; python -m jaxt2i.prepare cub",
    weights="CLIP ViT-B/32, fetched once",
    millions=13.3,
    tflop=0.234,
    rate="bfloat16",
    expected="FID 10.08, CLIP score 0.3164",
)
def cub() -> ConfigDict:
    """CUB-200-2011; the official upper bound is 1,501 epochs."""
    return published(1501)


@common.card(
    data="Oxford-102, 7,034 pictures; python -m jaxt2i.prepare oxford102",
    weights="CLIP ViT-B/32, fetched once",
    millions=10.6,
    tflop=0.234,
    rate="bfloat16",
    expected="unknown",
)
def oxford102() -> ConfigDict:
    """Oxford-102 with CUB's settings; not published."""
    return published(1501)


@common.card(
    data="COCO 2014, 82,783 pictures; python -m jaxt2i.prepare coco",
    weights="CLIP ViT-B/32, fetched once",
    millions=82.8,
    tflop=0.234,
    rate="bfloat16",
    expected="FID 5.85, released checkpoint 5.01",
)
def coco() -> ConfigDict:
    """COCO 2014, on 8 GPUs of 24 GB in the paper."""
    return published(1000)


def web(epochs: int) -> ConfigDict:
    """Web pictures as img2dataset wrote them."""
    c = published(epochs)
    c.data.source = "webdataset"
    return c


@common.card(
    data="CC3M as img2dataset writes it, up to 3.3 M pictures",
    weights="CLIP ViT-B/32, fetched once",
    millions=330.0,
    tflop=0.234,
    rate="bfloat16",
    expected="unknown",
)
def cc3m() -> ConfigDict:
    """CC3M: the official loader reads it, settings are COCO's, about 100 epochs."""
    return web(100)


@common.card(
    data="CC12M as img2dataset writes it, up to 12.4 M pictures",
    weights="CLIP ViT-B/32, fetched once",
    millions=372.0,
    tflop=0.234,
    rate="bfloat16",
    expected="FID 12.54 on COCO, zero-shot",
)
def cc12m() -> ConfigDict:
    """CC12M, about 30 epochs."""
    return web(30)


@common.card(
    data="COCO 2014, 82,783 pictures; python -m jaxt2i.prepare coco",
    weights="CLIP ViT-B/16, fetched once",
    millions=82.8,
    tflop=0.47,
    rate="bfloat16",
    expected="unknown",
)
def coco_b16() -> ConfigDict:
    """COCO around CLIP ViT-B/16: a grid of 14 x 14 patches."""
    c = coco()
    c.model.perception = "clip_b16"
    return c


@common.card(
    data="COCO 2014, 82,783 pictures; python -m jaxt2i.prepare coco",
    weights="CLIP ViT-L/14, fetched once",
    millions=82.8,
    tflop=1.26,
    rate="bfloat16",
    expected="unknown",
)
def coco_l14() -> ConfigDict:
    """COCO around CLIP ViT-L/14: 24 blocks, so taps and prompts lie twice as deep."""
    c = coco()
    c.model.update(perception="clip_l14", taps=(3, 9, 17), first_prompt=2, prompts=16)
    return c


@common.card(
    data="COCO 2014, 82,783 pictures; python -m jaxt2i.prepare coco",
    weights="CLIP ViT-B/32, fetched once",
    millions=82.8,
    tflop=0.25,
    rate="bfloat16",
    expected="unknown",
)
def coco_256() -> ConfigDict:
    """COCO at 256 px, CLIP's input range corrected."""
    c = coco()
    c.model.update(image_size=256, clip_input="clip")
    return c


@common.card(
    data="COCO 2014, 82,783 pictures; python -m jaxt2i.prepare coco",
    weights="CLIP ViT-B/32, fetched once",
    millions=82.8,
    tflop=0.77,
    rate="bfloat16",
    expected="unknown",
)
def coco_512() -> ConfigDict:
    """COCO at 512 px: one block more."""
    c = coco_256()
    c.data.resolution = 512
    c.model.image_size = 512
    return c


def on(name: str, them: common.Collection) -> ConfigDict:
    """A data set without published numbers; M-CLIP's tower reads German in the same space."""
    c = published(0)
    if them.language == "de":
        c.data.tokenizer = "mclip"
        c.model.perception = "mclip_b32"
    return c


def weights(name: str, them: common.Collection) -> str:
    """What a preset of `on` sees through."""
    if them.language != "de":
        return "CLIP ViT-B/32, fetched once"
    return (
        "M-CLIP/XLM-Roberta-Large-Vit-B-32, whose tokenizer.json lies in the folder "
        "config.data.tokenizer"
    )


PRESETS = {
    f.__name__: f
    for f in (
        *(embedded, emoji, emoji64, tiny, cub, oxford102, coco, cc3m, cc12m),
        *(coco_b16, coco_l14, coco_256, coco_512),
    )
}
PRESETS |= common.others(on, weights=weights, millions=100.0, tflop=0.234, rate="bfloat16")
