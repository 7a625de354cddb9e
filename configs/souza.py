"""Souza et al. (2020): python -m jaxt2i.train --config configs/souza.py[:preset].

The bare command trains `embedded`: the published structure at 32 px on procedural flowers and
birds, with the shipped mini CLIP as its text encoder, no download. The published presets read their
sentences from AttnGAN's DAMSM encoder: --config.model.text_weights=text_encoder200.pth with
--config.data.tokenizer=captions.pickle; or, by --config.model.perception=clip_b32
--config.data.tokenizer=clip --config.data.tokens=77, from CLIP; or, of captions in German or in
several languages, by --config.model.perception=mclip_b32 with the tokenizer.json of
M-CLIP/XLM-Roberta-Large-Vit-B-32 in the directory --config.data.tokenizer=DIR. Every picture is
trained with a mixture of up to --config.data.captions of its captions.

| preset | data | batch | epochs | published FID, IS |
|---|---|---|---|---|
| embedded | blooms, 32 px | 16 | 10 minutes on 2 CPU cores | see its docstring |
| cub | CUB-200-2011, 256 px | 24 | 600, checkpoint at 440 | 11.17, 4.23 |
| oxford102 | Oxford-102, 256 px | 24 | 600 | 16.47, 3.71 |
| coco | COCO 2014, 256 px | 24 | 120 | not published: our own extension |
| six more, as in common.COLLECTIONS | 256 px | 24 | COCO's, or a fifth of it | unknown |

The published FID compares pictures of training captions with the training pictures, which is lower
than the usual one against test pictures: say which one you report.

Records of the data sets come from python -m jaxt2i.prepare cub --from DIR --to data; then
--config.data.path=data/jaxt2i_cub. Each preset's own docstring has its data, weights, hours and
expected score. A folder of yours: --config.data.source=folder.
"""

from ml_collections import ConfigDict

from jaxt2i.configs import common
from jaxt2i.nn.optim import Adam
from jaxt2i.systems.souza.method import Model


def get_config(preset: str | None = None) -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(PRESETS, preset)


def published(epochs: int) -> ConfigDict:
    """What every published configuration shares: float32, constant learning rates (TTUR)."""
    c = common.base()
    c.method = "jaxt2i.systems.souza"
    c.batch_size = 24
    c.total_epochs = epochs
    c.precision = "float32"
    # The GPUs of the time knew no other.
    c.matmul_precision = "float32"
    c.data.update(source="records", tokens=18, resolution=256, crop="random_stretched")
    c.data.update(tokenizer="captions.pickle", resize="bilinear")
    c.optim.g = common.section(Adam, lr=1e-4, b2=0.999)
    c.optim.d = common.section(Adam, lr=4e-4, b2=0.999)
    c.model = common.section(Model)
    return c


def embedded() -> ConfigDict:
    """Two CPU cores, procedural `blooms` at 32 px, sentences of the shipped mini CLIP.

    The Frechet distance to held-out pictures in mini-CLIP features falls from 0.81 to 0.49 after
    16,000 images and to 0.30 at the end; R-precision among 100 rises from 0.02 to 0.13: colours
    follow the caption, shapes hardly. Learning rates are higher than published.
    """
    c = published(0)
    c.precision, c.matmul_precision = "auto", "default"
    c.total_steps = 2500
    c.batch_size = 16
    c.log_every_steps = 50
    c.checkpoint_every_steps = 500
    c.sample_every_steps = 500
    c.data.update(source="synthetic", corpus="blooms", tokenizer="mini", tokens=32, resolution=32)
    for adam in (c.optim.g, c.optim.d):
        adam.update(lr=1e-3, b2=0.9)
    c.model.update(
        perception="mini",
        normalize_sentence=True,
        g_base=16,
        d_base=16,
        attention=16,
        ema_beta=0.99,
    )
    return c


def emoji(resolution: int = 32) -> ConfigDict:
    """Emoji at 32 px, two CPU cores, through a CLIP that was trained on them.

    python -m jaxt2i.prepare emoji and configs/clip.py:emoji come first. On one core it took 29
    minutes: people have heads with eyes, shoulders and their skin's colour, faces are round and
    yellow, rare things are not drawn. A CLIP of another seed and shape finds the group of 28 % of
    the pictures (51 % of real ones, 18 % by chance; benchmarks/results/souza_emoji.json).
    """
    c = common.emoji(embedded(), resolution, "clip")
    c.total_steps = 6000
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
    c.data.update(resolution=16, captions=3)
    c.model.update(g_base=4, d_base=4, z_dim=16, attention=8)
    # Measured over two seeds: 0.47 and 0.55 gained.
    c.promise.update(steps=400, margin=ConfigDict({"frechet": 0.25}))
    return c


@common.card(
    data="CUB-200-2011, 8,855 pictures with ten captions each; python -m jaxt2i.prepare cub",
    weights="AttnGAN's DAMSM text encoder of the data and its vocabulary, or CLIP's (see above)",
    millions=5.3,
    tflop=0.41,
    expected="FID 11.17 against training pictures, IS 4.23",
)
def cub() -> ConfigDict:
    """CUB-200-2011, 600 epochs; the published checkpoint is that of epoch 440."""
    c = published(600)
    c.keep_at_epochs = (440,)
    return c


@common.card(
    data="Oxford-102, 7,034 pictures; python -m jaxt2i.prepare oxford102",
    weights="runs/damsm-oxford102, which configs/damsm.py:oxford102 trains first",
    millions=4.2,
    tflop=0.41,
    expected="FID 16.47 against training pictures, IS 3.71",
)
def oxford102() -> ConfigDict:
    """Oxford-102, 600 epochs. No encoder of its captions was published."""
    c = published(600)
    c.perception_from = "runs/damsm-oxford102"
    return c


@common.card(
    data="COCO 2014, 82,783 pictures; python -m jaxt2i.prepare coco",
    weights="AttnGAN's DAMSM text encoder of the data and its vocabulary, or CLIP's (see above)",
    millions=9.9,
    tflop=0.41,
    expected="unknown",
)
def coco() -> ConfigDict:
    """COCO 2014, 5 captions a picture; not published, settings are CUB's."""
    c = published(120)
    c.data.captions = 5
    c.model.text_vocab = 27297
    return c


def on(name: str, them: common.Collection) -> ConfigDict:
    """A data set without published numbers, through the DAMSM of its own captions."""
    c = published(0)
    c.perception_from = f"runs/damsm-{name}"
    c.data.tokens = them.words
    c.model.text_vocab = 27297
    return c


PRESETS = {f.__name__: f for f in (embedded, emoji, emoji64, tiny, cub, oxford102, coco)}
PRESETS |= common.others(on, weights=common.after_damsm, millions=9.9, tflop=0.41)
