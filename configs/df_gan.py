"""DF-GAN (Tao et al. 2022): python -m jaxt2i.train --config configs/df_gan.py[:preset].

The bare command trains `embedded`: the published structure at 32 px on procedural flowers and
birds, with the shipped mini CLIP as its text encoder, no download. The published presets read
their sentences from AttnGAN's DAMSM encoder: --config.model.text_weights=text_encoder.pth with
--config.data.tokenizer=captions_DAMSM.pickle, both from the dataset's metadata archive; or, by
--config.model.perception=clip_b32 --config.data.tokenizer=clip --config.data.tokens=77, from CLIP.
Captions in German or in several languages: --config.model.perception=mclip_b32
--config.data.tokenizer=DIR --config.data.tokens=77, DIR with the tokenizer.json of
M-CLIP/XLM-Roberta-Large-Vit-B-32.

| preset | data | batch | epochs | published FID (repository's own protocol) |
|---|---|---|---|---|
| embedded | blooms, 32 px | 16 | 10 minutes on 2 CPU cores | see its docstring |
| cub | CUB-200-2011, 256 px | 32 | 1,300, checkpoint at 1,220 | 12.10 (paper 14.81, IS 5.10) |
| coco | COCO 2014, 256 px | 32 | 300, checkpoint at 290 | 15.41 (paper 19.32) |
| oxford102 | Oxford-102, 256 px | 32 | 1,000 | not published |
| six more, as in common.COLLECTIONS | 256 px | 32 | COCO's, or a fifth of it | unknown |

The repository's FID uses torchvision's Inception and 30,000 pictures of test captions; it cannot be
compared with clean-fid or the TensorFlow original.

Records of the data sets come from python -m jaxt2i.prepare cub --from DIR --to data; then
--config.data.path=data/jaxt2i_cub. Each preset's own docstring has its data, weights, hours and
expected score. A folder of yours: --config.data.source=folder.
"""

from ml_collections import ConfigDict

from jaxt2i.configs import common
from jaxt2i.nn.optim import Adam
from jaxt2i.systems.df_gan.method import Model


def get_config(preset: str | None = None) -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(PRESETS, preset)


def published(epochs: int) -> ConfigDict:
    """What every published configuration shares: one GPU, float32, constant learning rates."""
    c = common.base()
    c.method = "jaxt2i.systems.df_gan"
    c.batch_size = 32
    c.total_epochs = epochs
    c.seed = 100
    c.precision = "float32"
    # PyTorch's default at the time: convolutions may use TF32.
    c.matmul_precision = "tensorfloat32"
    c.data.update(source="records", tokens=18, resolution=256, crop="random")
    c.data.update(tokenizer="captions_DAMSM.pickle", resize="bilinear")
    c.optim.g = common.section(Adam, lr=1e-4, b2=0.9)
    c.optim.d = common.section(Adam, lr=4e-4, b2=0.9)
    c.model = common.section(Model)
    return c


def embedded() -> ConfigDict:
    """Two CPU cores, procedural `blooms` at 32 px, sentences of the shipped mini CLIP.

    The Frechet distance to held-out pictures in mini-CLIP features falls from 1.7 to 0.5 after
    8,000 images and to 0.19 at the end; R-precision among 100 rises from 0.01 to 0.39. Learning
    rates are five and two and a half times the published ones, and G is averaged.
    """
    c = published(0)
    c.precision, c.matmul_precision = "auto", "default"
    c.total_steps = 3000
    c.batch_size = 16
    c.log_every_steps = 50
    c.checkpoint_every_steps = 500
    c.sample_every_steps = 500
    c.data.update(source="synthetic", corpus="blooms", tokenizer="mini", tokens=32, resolution=32)
    c.optim.g.lr, c.optim.d.lr = 5e-4, 1e-3
    c.model.update(perception="mini", g_base=16, d_base=16, ema_images=2000.0)
    return c


def emoji(resolution: int = 32) -> ConfigDict:
    """Emoji at 32 px, two CPU cores, through a CLIP that was trained on them.

    python -m jaxt2i.prepare emoji and configs/clip.py:emoji come first. On a core of two it took 29
    minutes: the Frechet distance to held-out emoji in that CLIP's features falls from 1.9 to 0.15.
    Faces, people and colours follow the name, rare things do not: a CLIP of another seed and shape
    finds the group of 24 % of the pictures (51 % of real ones, 12 % by chance;
    benchmarks/results/df_gan_emoji.json).
    """
    c = common.emoji(embedded(), resolution, "clip")
    c.total_steps = 6000
    # A tanh can saturate on white for good. With this seed it only learns more slowly: Frechet 0.38
    # after 1,000 steps, 0.28 without (benchmarks/results/ablations_df_gan_emoji.json).
    c.model.bound = ""
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
    c.model.update(g_base=4, d_base=4, z_dim=16, ema_images=500.0)
    # Measured: 0.75 gained after 200 steps.
    c.promise.update(steps=200, margin=ConfigDict({"frechet": 0.4}))
    return c


@common.card(
    data="CUB-200-2011, 8,855 pictures; python -m jaxt2i.prepare cub",
    weights="AttnGAN's DAMSM text encoder of the data and its vocabulary, or CLIP's (see above)",
    hours="about 3 days on one RTX 3090, by the authors, for 11.5 M pictures of 0.131 TFLOP",
    expected="FID 12.10, by the repository's protocol (paper 14.81, IS 5.10)",
)
def cub() -> ConfigDict:
    """CUB-200-2011, crops of birds; the published checkpoint is that of epoch 1,220."""
    c = published(1300)
    c.keep_at_epochs = (1220,)
    return c


@common.card(
    data="COCO 2014, 82,783 pictures; python -m jaxt2i.prepare coco",
    weights="AttnGAN's DAMSM text encoder of the data and its vocabulary, or CLIP's (see above)",
    millions=24.8,
    tflop=0.131,
    rate="tensorfloat32",
    expected="FID 15.41, by the repository's protocol (paper 19.32)",
)
def coco() -> ConfigDict:
    """COCO 2014; the published checkpoint is that of epoch 290."""
    c = published(300)
    c.keep_at_epochs = (290,)
    c.model.text_vocab = 27297
    return c


@common.card(
    data="Oxford-102, 7,034 pictures; python -m jaxt2i.prepare oxford102",
    weights="runs/damsm-oxford102, which configs/damsm.py:oxford102 trains first",
    millions=7.0,
    tflop=0.131,
    rate="tensorfloat32",
    expected="unknown",
)
def oxford102() -> ConfigDict:
    """Oxford-102 with CUB's settings; not published."""
    c = published(1000)
    c.perception_from = "runs/damsm-oxford102"
    return c


def on(name: str, them: common.Collection) -> ConfigDict:
    """A data set without published numbers, through the DAMSM of its own captions."""
    c = published(0)
    c.perception_from = f"runs/damsm-{name}"
    c.data.tokens = them.words
    c.model.text_vocab = 27297
    return c


PRESETS = {f.__name__: f for f in (embedded, emoji, emoji64, tiny, cub, coco, oxford102)}
PRESETS |= common.others(
    on, weights=common.after_damsm, millions=24.8, tflop=0.131, rate="tensorfloat32"
)
