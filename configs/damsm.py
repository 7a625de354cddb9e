"""DAMSM (Xu et al. 2018, AttnGAN): python -m jaxt2i.train --config configs/damsm.py[:preset].

The bare command trains `embedded`: a small trunk and the word LSTM on procedural flowers and birds.
The attentional GANs find it by config.init_from. The published presets need torchvision's
Inception-v3 (--config.model.trunk_weights=FILE) and read the vocabulary of the dataset's metadata
archive, captions.pickle.

| preset | data | batch | epochs | published |
|---|---|---|---|---|
| embedded | blooms, 32 px | 64 | 6 minutes on 2 CPU cores | see its docstring |
| scenes, scenes32 | scenes, 64 and 32 px | 64 | two CPU cores; for OP-GAN and Obj-GAN | - |
| cub | CUB-200-2011, 299 px | 48 | 200 | - |
| oxford102 | Oxford-102, 299 px | 48 | 200 | - |
| coco | COCO 2014, 299 px | 48 | 100 | losses s 0.53/0.56, w 0.35/0.40 (users) |
| six more, as in common.COLLECTIONS | 299 px | 48 | COCO's, or a fifth of it | unknown |

Records of the data sets come from python -m jaxt2i.prepare cub --from DIR --to data; then
--config.data.path=data/jaxt2i_cub. Each preset's own docstring has its data, weights, hours and
expected score. A folder of yours: --config.data.source=folder.
"""

from ml_collections import ConfigDict

from jaxt2i.configs import common
from jaxt2i.systems.damsm.method import Model, Optim


def get_config(preset: str | None = None) -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(PRESETS, preset)


def published(vocab: int, tokens: int, epochs: int) -> ConfigDict:
    """What both published configurations share.

    The official code goes on to 600 epochs; its published encoders are those of epoch 200 (CUB) and
    100 (COCO).
    """
    c = common.base()
    c.method = "jaxt2i.systems.damsm"
    c.batch_size = 48
    c.total_epochs = epochs
    c.seed = 100
    # The GPUs of the time knew no other.
    c.precision = c.matmul_precision = "float32"
    c.data.update(source="records", resolution=299, crop="random", resize="bilinear")
    c.data.update(tokenizer="captions.pickle", tokens=tokens)
    c.optim = common.section(Optim, decay_every_epochs=1.0)
    c.model = common.section(Model, text_vocab=vocab)
    return c


def embedded() -> ConfigDict:
    """Two CPU cores, procedural `blooms` at 32 px, the corpus' own 135 words.

    R-precision among 100 held-out captions rises from 0.01 to 0.36 after 500 steps and 0.74 at the
    end. The trunk is small and learns. Pictures of one class differ in colour and size, so they are
    negatives for each other. Word scores are divided by gamma2: the corpus' captions are exact,
    and the published sharpness learns more slowly from them.
    """
    c = published(136, 16, 0)
    c.precision, c.matmul_precision = "auto", "default"
    c.seed = 0
    c.total_steps = 2000
    c.optim.decay_every_epochs = 0.0
    c.batch_size = 64
    c.log_every_steps = 50
    c.checkpoint_every_steps = 500
    c.sample_every_steps = 250
    c.score_images = 500
    c.data.update(source="synthetic", corpus="blooms", tokenizer="words", resolution=32)
    c.data.update(crop="centre", resize="lanczos")
    c.model.update(embed=64, width=64, trunk="small", train_trunk=True, base=16)
    c.model.update(class_mask=False, divide_by_gamma2=True)
    return c


def scenes() -> ConfigDict:
    """Procedural `scenes` at 64 px, whose captions name several objects: what OP-GAN reads with."""
    c = embedded()
    c.total_steps = 1000
    c.data.update(corpus="scenes", resolution=64, tokens=24)
    return c


def scenes32() -> ConfigDict:
    """The same at 32 px: what Obj-GAN reads with."""
    c = scenes()
    c.data.resolution = 32
    return c


def emoji(resolution: int = 32) -> ConfigDict:
    """Encoders of emoji and their names, 32 px, two CPU cores, a vocabulary of their own words.

    python -m jaxt2i.prepare emoji comes first. AttnGAN's and DM-GAN's `emoji` presets find it.
    """
    c = common.emoji(embedded(), resolution, "")
    c.total_steps = 1500
    c.score_images = 300
    c.data.update(tokenizer="own_words", tokens=12)
    c.model.text_vocab = 1500
    return c


def emoji64() -> ConfigDict:
    """The same at 64 px with wider networks, for one GPU; not yet seen."""
    c = emoji(64)
    c.total_steps = 4000
    c.model.update(embed=128, width=128, base=32)
    return c


def tiny() -> ConfigDict:
    """Compiles in seconds: for smoke tests."""
    c = embedded()
    c.batch_size = 16
    c.total_steps = 8
    c.log_every_steps = 1
    c.checkpoint_every_steps = 4
    c.sample_every_steps = 4
    c.score_images = 200
    c.data.resolution = 16
    c.model.update(embed=16, width=16, base=8)
    # Measured over two seeds: 0.095 gained; after 300 steps 0.03 to 0.055, near the noise.
    c.promise.update(steps=600, margin=ConfigDict({"r_precision": 0.05}))
    return c


@common.card(
    data="CUB-200-2011, 8,855 pictures; python -m jaxt2i.prepare cub",
    weights="torchvision's Inception-v3 (config.model.trunk_weights)",
    millions=1.8,
    tflop=0.0114,
    expected="R-precision not published; the encoders serve AttnGAN",
)
def cub() -> ConfigDict:
    """CUB-200-2011: 150 classes, 184 steps an epoch."""
    return published(5450, 18, 200)


@common.card(
    data="Oxford-102, 7,034 pictures; python -m jaxt2i.prepare oxford102",
    weights="torchvision's Inception-v3 (config.model.trunk_weights)",
    millions=1.4,
    tflop=0.0114,
    expected="unknown",
)
def oxford102() -> ConfigDict:
    """Oxford-102: 82 classes, a vocabulary of their own words; not published."""
    c = published(5450, 18, 200)
    c.data.tokenizer = "own_words"
    return c


@common.card(
    data="COCO 2014, 82,783 pictures; python -m jaxt2i.prepare coco",
    weights="torchvision's Inception-v3 (config.model.trunk_weights)",
    millions=8.3,
    tflop=0.0114,
    expected="losses s 0.53/0.56 and w 0.35/0.40, by users of the official code",
)
def coco() -> ConfigDict:
    """COCO 2014: no classes, 1,724 steps an epoch."""
    c = published(27297, 15, 100)
    c.model.class_mask = False
    return c


def on(name: str, them: common.Collection) -> ConfigDict:
    """A data set without published numbers, with a vocabulary of its own words."""
    c = published(27297, them.words, 0)
    c.data.tokenizer = "own_words"
    c.model.class_mask = False
    return c


SMALL = (embedded, scenes, scenes32, emoji, emoji64, tiny)
PRESETS = {f.__name__: f for f in (*SMALL, cub, oxford102, coco)}
PRESETS |= common.others(
    on,
    weights=lambda name, them: "torchvision's Inception-v3 (config.model.trunk_weights)",
    millions=8.3,
    tflop=0.0114,
)
