"""TextControlGAN (Ku and Lee 2023): --config configs/textcontrol_gan.py[:preset].

The bare command trains `embedded`: 32 px of procedural flowers and birds, sentences of the shipped
mini CLIP. The published presets read char-CNN-RNN embeddings that come with the data, in the hdf5
files of GAN-INT-CLS: --config.data.path=birds.hdf5. Any sentence encoder stands in for them by
--config.model.perception=clip_b32 --config.data.tokenizer=clip --config.data.tokens=77, on records.

| preset | data | batch | epochs | published |
|---|---|---|---|---|
| embedded | blooms, 32 px | 32 (16 + 16) | 6,000 steps | - |
| no_regressor | the same | 16 | the same | ablation: no loss ties pictures to captions |
| emoji | emoji, 32 px | 32 (16 + 16) | 6,000 steps, not yet seen | - |
| cub | CUB-200-2011, 64 px | 128 (64 + 64) | 200 | IS +17.6 %, FID -36.6 % on GAN-INT-CLS |
| cub128 | CUB-200-2011, 128 px | 128 (64 + 64) | 200 | pictures alone |
| oxford102 | Oxford-102, 64 px | 128 (64 + 64) | 200 | - |
| coco | COCO 2014, 64 px | 128 (64 + 64) | 40 | - |

Half of every batch is the regressor's, so that 200 epochs here are 100 of each of the code's two
loaders. The code's default batch is 1, where interpolated sentences and batch norms mean nothing;
what the paper trained with is not known.
"""

from ml_collections import ConfigDict

from jaxt2i.configs import common
from jaxt2i.nn.optim import Adam
from jaxt2i.systems.textcontrol_gan.method import Model


def get_config(preset: str | None = None) -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(PRESETS, preset)


def published(epochs: int = 200) -> ConfigDict:
    """What every published configuration shares: one GPU, float32, constant learning rates."""
    c = common.base()
    c.method = "jaxt2i.systems.textcontrol_gan"
    c.batch_size = 128
    c.total_epochs = epochs
    c.precision = "float32"
    # PyTorch's default at the time: convolutions may use TF32.
    c.matmul_precision = "tensorfloat32"
    # The whole picture, as Pillow resizes where nothing is said.
    c.data.update(source="hdf5", text_width=1024, resolution=64, crop="none", resize="bicubic")
    for player in ("g", "d"):
        c.optim[player] = common.section(Adam, lr=1e-4, b1=0.0, b2=0.999)
    c.optim.c = common.section(Adam, lr=5e-4, b1=0.9, b2=0.999)
    c.model = common.section(Model)
    return c


def embedded() -> ConfigDict:
    """Two CPU cores, procedural `blooms` at 32 px, sentences of the shipped mini CLIP.

    Conditional norms keep running averages, so that a picture is drawn alone. By the mini CLIP that
    reads the captions, the Frechet distance to held-out pictures falls from 0.91 to 0.50 after
    32,000 images and 0.27 at the end; R-precision among 100 rises from 0.01 to 0.36. A recogniser
    of blooms tells bird from flower as asked in 85 % of 1,000 drawn pictures and finds the colour
    in 33 % (real ones: 92 %). Colours follow the captions, shapes are blots. It takes 26 minutes on
    one of two cores (benchmarks/results/textcontrol_gan_embedded.json).
    """
    c = published(0)
    c.precision, c.matmul_precision = "auto", "default"
    c.total_steps = 6000
    c.batch_size = 32
    c.log_every_steps = 50
    c.checkpoint_every_steps = 500
    c.sample_every_steps = 500
    c.data.update(source="synthetic", text_width=0, crop="centre", resize="lanczos", resolution=32)
    c.data.update(corpus="blooms", tokenizer="mini", tokens=32)
    c.optim.g.lr = c.optim.d.lr = 4e-4
    c.optim.c.lr = 1e-3
    c.model.update(perception="mini", normalize_sentence=True, cbn_eval="running", psi=1.0)
    c.model.update(part=16, g_base=16, d_base=16, c_base=16, g_most=128, c_most=64)
    return c


def no_regressor() -> ConfigDict:
    """The ablation: `embedded` with the critic alone, which knows nothing of the text.

    R-precision stays at 0.015 (0.36 with the regressor); pictures are more diverse and, by the
    recogniser's Frechet distance, nearer to real ones
    (benchmarks/results/ablations_textcontrol_gan.json).
    """
    c = embedded()
    c.batch_size = 16
    c.model.regressor_weight = 0.0
    return c


def emoji() -> ConfigDict:
    """Emoji at 32 px, two CPU cores, sentences of a CLIP that was trained on them.

    python -m jaxt2i.prepare emoji and configs/clip.py:emoji come first. Not yet seen.
    """
    return common.emoji(embedded(), 32, "clip")


def tiny() -> ConfigDict:
    """Compiles in seconds: for smoke tests, not for pictures."""
    c = embedded()
    c.total_steps = 8
    c.batch_size = 16
    c.log_every_steps = 1
    c.sample_every_steps = 4
    c.checkpoint_every_steps = 4
    c.grid.count = 4
    c.score_images = 64
    c.data.resolution = 16
    c.model.update(part=4, g_base=8, d_base=8, c_base=8, g_most=16, c_most=16)
    # Seen with one seed: from 1.06 at the first step to 0.75 after 500, R-precision from 0 to 0.06.
    c.promise.update(steps=500, margin=ConfigDict({"frechet": 0.15}))
    return c


@common.card(
    data="CUB-200-2011, 8,855 pictures; birds.hdf5 of GAN-INT-CLS",
    weights="none",
    hours="2 at the least on 16 TPU v5e chips together, as planned for 1.8 M pictures "
    "(benchmarks/results/plan_textcontrol_gan_cub_v5e_4x4.json)",
    expected="IS 17.6 % above and FID 36.6 % below GAN-INT-CLS'",
)
def cub() -> ConfigDict:
    """CUB-200-2011: 8,855 birds, five captions each, of the file birds.hdf5; the code's run."""
    return published()


@common.card(
    data="CUB-200-2011, 8,855 pictures; birds.hdf5 of GAN-INT-CLS",
    weights="none",
    hours="not counted; python -m jaxt2i.plan counts a step",
    expected="unknown",
)
def cub128() -> ConfigDict:
    """The paper's larger pictures, of which there is no code: its augmentation is on."""
    c = published()
    c.data.resolution = 128
    c.model.regressor_augment = True
    return c


@common.card(
    data="Oxford-102, 7,034 pictures; flowers.hdf5 of GAN-INT-CLS",
    weights="none",
    hours="not counted; python -m jaxt2i.plan counts a step",
    expected="unknown",
)
def oxford102() -> ConfigDict:
    """Oxford-102, of the file flowers.hdf5: 7,034 flowers; not published."""
    return published()


@common.card(
    data="COCO 2014, 82,783 pictures; python -m jaxt2i.prepare coco",
    weights="the published DAMSM of COCO (config.model.text_weights) and its captions_DAMSM.pickle",
    hours="not counted; python -m jaxt2i.plan counts a step",
    expected="unknown",
)
def coco() -> ConfigDict:
    """COCO 2014: records, sentences of AttnGAN's DAMSM (config.model.text_weights); not published.

    There are no public embeddings in hdf5.
    """
    c = published(40)
    c.data.update(source="records", text_width=0, tokens=18, tokenizer="captions_DAMSM.pickle")
    c.model.update(perception="damsm", text_vocab=27297)
    return c


PRESETS = {
    f.__name__: f for f in (embedded, no_regressor, emoji, tiny, cub, cub128, oxford102, coco)
}
