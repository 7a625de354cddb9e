"""AttnGAN (Xu et al. 2018): python -m jaxt2i.train --config configs/attngan.py[:preset].

The generator reads captions through, and is guided by, a DAMSM that was trained before it. The bare
command trains `embedded` on the DAMSM of `python -m jaxt2i.train --config configs/damsm.py`, whose
work directory config.init_from names. The published presets start from the published encoders:

    python -m jaxt2i.convert damsm --from text_encoder200.pth --to weights/damsm_bird
    python -m jaxt2i.convert damsm --from image_encoder200.pth --to weights/damsm_bird
    python -m jaxt2i.train --config configs/attngan.py:cub --config.init_from=weights/damsm_bird

| preset | data | batch | epochs | published IS, R-precision, FID |
|---|---|---|---|---|
| embedded | blooms, 32 px | 16 | 10 minutes on 2 CPU cores | see its docstring |
| cub | CUB-200-2011, 256 px | 20 | 600 | 4.36, 67.82 %, 23.98 (PyTorch) / 14.01 (TF) |
| coco | COCO 2014, 256 px | 14 | 120 | 25.89, 85.47 %, 35.49 / 29.53 |
| cub_dcgan | CUB-200-2011, 256 px | 30 | 400 | 4.12, -, - (AttnDCGAN) |
| six more, as in common.COLLECTIONS | 256 px | 14 | COCO's, or a fifth of it | unknown |

Records of the data sets come from python -m jaxt2i.prepare cub --from DIR --to data; then
--config.data.path=data/jaxt2i_cub. Each preset's own docstring has its data, weights, hours and
expected score. A folder of yours: --config.data.source=folder.
"""

from ml_collections import ConfigDict

from jaxt2i.configs import common
from jaxt2i.nn.optim import Adam
from jaxt2i.systems.attngan.method import Model


def get_config(preset: str | None = None) -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(PRESETS, preset)


def published(batch_size: int, epochs: int) -> ConfigDict:
    """What every published configuration shares: one GPU, float32, constant learning rates."""
    c = common.base()
    c.method = "jaxt2i.systems.attngan"
    c.batch_size = batch_size
    c.total_epochs = epochs
    c.seed = 100
    # The GPUs of the time knew no other.
    c.precision = c.matmul_precision = "float32"
    c.data.update(source="records", tokens=18, resolution=256, crop="random")
    c.data.update(tokenizer="captions.pickle", resize="bilinear")
    for player in ("g", "d"):
        c.optim[player] = common.section(Adam, lr=2e-4, b1=0.5, b2=0.999)
    c.model = common.section(Model)
    return c


def small(c: ConfigDict) -> ConfigDict:
    """A published configuration, made small enough for the procedural data and two CPU cores.

    Pictures of 8, 16 and 32 px; every caption has its own mask, and wrong pairs are made by moving
    all captions of the batch on by one.
    """
    c.precision, c.matmul_precision = "auto", "default"
    c.seed = 0
    c.total_epochs = 0
    c.total_steps = 3000
    c.batch_size = 16
    c.log_every_steps = 50
    c.checkpoint_every_steps = 500
    c.sample_every_steps = 500
    c.init_from = "runs/damsm-default"
    c.data.update(source="synthetic", corpus="blooms", tokenizer="words", tokens=16, resolution=32)
    c.data.update(crop="centre", resize="lanczos")
    c.optim.g.lr = c.optim.d.lr = 1e-3
    c.model.update(text_vocab=136, embed=64, width=64, trunk="small", base=16)
    c.model.update(g_base=16, d_base=16, residuals=1, z_dim=32, c_dim=32)
    c.model.update(attention_mask="own", wrong_pairs="roll", class_mask=False)
    c.model.update(divide_by_gamma2=True, damsm_weight=1.0, ema_beta=0.995)
    return c


def smoke(c: ConfigDict) -> ConfigDict:
    """An embedded configuration that compiles in seconds, on random encoders."""
    c.total_steps = 8
    c.batch_size = 8
    c.log_every_steps = 1
    c.sample_every_steps = 4
    c.checkpoint_every_steps = 4
    c.grid.count = 4
    c.score_images = 64
    c.init_from = ""
    c.data.resolution = 16
    c.model.update(weights="random", embed=16, width=16, base=8, stages=2)
    c.optim.g.lr = c.optim.d.lr = 4e-4
    # Random encoders guide nobody; the term is there to be run.
    c.model.update(g_base=8, d_base=8, z_dim=8, c_dim=8, ema_beta=0.98, damsm_weight=0.05)
    return c


def embedded() -> ConfigDict:
    """Two CPU cores, procedural `blooms`, three stages of 8, 16 and 32 px.

    The Frechet distance to held-out pictures, in DAMSM codes, falls from 1.84 to 0.26 after 16,000
    images and to 0.08 at the end; R-precision among 100 rises from 0.01 to 0.66 (real: 0.74).
    """
    return small(published(16, 0))


def emoji(resolution: int = 32) -> ConfigDict:
    """Emoji at 32 px, two CPU cores, through a DAMSM that was trained on them.

    python -m jaxt2i.prepare emoji and configs/damsm.py:emoji come first. On one core it took 22
    minutes: faces, heads on shoulders and skin follow the name, rare things are blots. A CLIP of
    another seed and shape finds the group of 33 % of them (51 % of real ones, 19 % by chance;
    benchmarks/results/attngan_emoji.json); after a quarter of the steps there were silhouettes.
    """
    c = common.emoji(embedded(), resolution, "damsm")
    c.total_steps = 12_000
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
    c = smoke(embedded())
    # Measured over four seeds: 0.014 to 0.05 gained, in the features of random encoders.
    c.promise.update(steps=150, margin=ConfigDict({"frechet": 0.008}))
    return c


@common.card(
    data="CUB-200-2011, 8,855 pictures; python -m jaxt2i.prepare cub",
    weights="the published DAMSM of birds, converted (see above), and its captions.pickle",
    millions=5.3,
    tflop=0.129,
    expected="IS 4.36, R-precision 67.82 %, FID 23.98 (PyTorch) or 14.01 (TensorFlow)",
)
def cub() -> ConfigDict:
    """CUB-200-2011: 442 steps an epoch."""
    return published(20, 600)


@common.card(
    data="COCO 2014, 82,783 pictures; python -m jaxt2i.prepare coco",
    weights="the published DAMSM of COCO, converted (see above), and its captions.pickle",
    millions=9.9,
    tflop=0.29,
    expected="IS 25.89, R-precision 85.47 %, FID 35.49 (PyTorch) or 29.53 (TensorFlow)",
)
def coco() -> ConfigDict:
    """COCO 2014, without classes; wider networks, DAMSM loss of weight 50."""
    c = published(14, 120)
    c.data.tokens = 12
    c.model.update(text_vocab=27297, g_base=48, d_base=96, residuals=3)
    c.model.update(damsm_weight=50.0, class_mask=False)
    return c


@common.card(
    data="CUB-200-2011, 8,855 pictures; python -m jaxt2i.prepare cub",
    weights="the published DAMSM of birds, converted (see above), and its captions.pickle",
    millions=3.5,
    tflop=0.09,
    expected="IS 4.12",
)
def cub_dcgan() -> ConfigDict:
    """AttnDCGAN: one picture, no residual blocks, one discriminator with one head."""
    c = published(30, 400)
    c.model.update(residuals=0, last_only=True, damsm_weight=1.0)
    return c


def on(name: str, them: common.Collection) -> ConfigDict:
    """A data set without published numbers, through the DAMSM of its own captions."""
    c = coco()
    c.perception_from = f"runs/damsm-{name}"
    c.data.tokens = them.words
    return c


PRESETS = {f.__name__: f for f in (embedded, emoji, emoji64, tiny, cub, coco, cub_dcgan)}
PRESETS |= common.others(on, weights=common.after_damsm, millions=9.9, tflop=0.29)
