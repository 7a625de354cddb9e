"""DM-GAN (Zhu et al. 2019): python -m jaxt2i.train --config configs/dm_gan.py[:preset].

Like AttnGAN it starts from a DAMSM: the bare command trains `embedded` on that of
`python -m jaxt2i.train --config configs/damsm.py`; configs/attngan.py says how the published
encoders are converted.

| preset | data | batch | epochs | published IS, R-precision, FID (PyTorch) |
|---|---|---|---|---|
| embedded | blooms, 32 px | 16 | 10 minutes on 2 CPU cores | see its docstring |
| cub | CUB-200-2011, 256 px | 10 | 800 | 4.75, 72.31 %, 16.09 (released: 4.71, 76.58 %, 15.34) |
| coco | COCO 2014, 256 px | 16 | 200 | 30.49, 88.56 %, 32.64 (released: 32.43, 92.23 %, 26.55) |
| six more, as in common.COLLECTIONS | 256 px | 16 | COCO's, or a fifth of it | unknown |

Records of the data sets come from python -m jaxt2i.prepare cub --from DIR --to data; then
--config.data.path=data/jaxt2i_cub. Each preset's own docstring has its data, weights, hours and
expected score. A folder of yours: --config.data.source=folder.
"""

from ml_collections import ConfigDict

from jaxt2i.configs import attngan, common
from jaxt2i.systems.dm_gan.method import Model


def get_config(preset: str | None = None) -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(PRESETS, preset)


def published(batch_size: int, epochs: int) -> ConfigDict:
    """AttnGAN's run and optimisers with DM-GAN's settings; the code's epochs (paper: 600, 120)."""
    c = attngan.published(batch_size, epochs)
    c.method = "jaxt2i.systems.dm_gan"
    c.model = common.section(Model)
    return c


def embedded() -> ConfigDict:
    """Two CPU cores, procedural `blooms`, three stages of 8, 16 and 32 px.

    The Frechet distance to held-out pictures, in DAMSM codes, falls from 1.86 to 0.18 after 16,000
    images and to 0.09 at the end; R-precision among 100 rises from 0.01 to 0.75 (real: 0.74).
    """
    return attngan.small(published(16, 0))


def emoji(resolution: int = 32) -> ConfigDict:
    """Emoji at 32 px, two CPU cores, through a DAMSM that was trained on them.

    python -m jaxt2i.prepare emoji and configs/damsm.py:emoji come first. On one core it took 19
    minutes: faces are faces, people silhouettes in the colours of the name. A CLIP of another seed
    and shape finds the group of 18 % of the pictures only (51 % of real ones, 14 % by chance) and
    the real picture's colour in 34 % (19 % by chance; benchmarks/results/dm_gan_emoji.json).
    """
    c = common.emoji(embedded(), resolution, "damsm")
    c.total_steps = 10_000
    c.init_from = ""
    return c


def emoji64() -> ConfigDict:
    """The same at 64 px, wider, for one GPU, after configs/damsm.py:emoji64; not yet seen."""
    c = emoji(64)
    c.batch_size = 64
    c.total_steps = 20_000
    c.model.update(g_base=32, d_base=32)
    return c


def tiny() -> ConfigDict:
    """Compiles in seconds: for smoke tests, not for pictures."""
    c = attngan.smoke(embedded())
    # Measured over four seeds: 0.014 to 0.05 gained, in the features of random encoders.
    c.promise.update(steps=150, margin=ConfigDict({"frechet": 0.008}))
    return c


@common.card(
    data="CUB-200-2011, 8,855 pictures; python -m jaxt2i.prepare cub",
    weights="the published DAMSM of birds, converted (configs/attngan.py says how)",
    millions=7.1,
    tflop=0.233,
    expected="IS 4.75, R-precision 72.31 %, FID 16.09 (released: 4.71, 76.58 %, 15.34)",
)
def cub() -> ConfigDict:
    """CUB-200-2011: 885 steps an epoch."""
    return published(10, 800)


@common.card(
    data="COCO 2014, 82,783 pictures; python -m jaxt2i.prepare coco",
    weights="the published DAMSM of COCO, converted (configs/attngan.py says how)",
    millions=16.6,
    tflop=0.307,
    expected="IS 30.49, R-precision 88.56 %, FID 32.64 (released: 32.43, 92.23 %, 26.55)",
)
def coco() -> ConfigDict:
    """COCO 2014: three residual blocks, DAMSM loss of weight 50, no classes."""
    c = published(16, 200)
    c.data.tokens = 12
    c.model.update(text_vocab=27297, residuals=3, damsm_weight=50.0, class_mask=False)
    return c


def on(name: str, them: common.Collection) -> ConfigDict:
    """A data set without published numbers, through the DAMSM of its own captions."""
    c = coco()
    c.perception_from = f"runs/damsm-{name}"
    c.data.tokens = them.words
    return c


PRESETS = {f.__name__: f for f in (embedded, emoji, emoji64, tiny, cub, coco)}
PRESETS |= common.others(on, weights=common.after_damsm, millions=16.6, tflop=0.307)
