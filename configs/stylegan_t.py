"""StyleGAN-T (Sauer et al. 2023): python -m jaxt2i.train --config configs/stylegan_t.py[:preset].

The bare command trains `embedded`: the published structure at a size for two CPU cores, on
procedural flowers and birds, no download. The other presets are the published configurations;
their perception (CLIP ViT-L/14 and DINO ViT-S/16) is fetched once, or read from
--config.model.clip_weights=FILE and --config.model.feature_weights=FILE. Captioned images come from
what img2dataset wrote: --config.data.path=DIR holds CC12M for the lite presets, and for the full
ones the folders cc3m, cc12m, yfcc, redcaps and laion_aesthetic (config.data.web.mix). A folder of
yours: --config.data.source=folder. Captions in German or in several languages:
--config.model.perception=mclip_l14_dino_s16 with --config.data.tokenizer=DIR, which holds the
tokenizer.json of M-CLIP/XLM-Roberta-Large-Vit-L-14.

| preset | trains | published cost | expected FID-30k on COCO, zero-shot |
|---|---|---|---|
| embedded | G, D at 32 px | 12 minutes on 2 CPU cores | see its docstring |
| lite64 | the ablation's generator, 75 M, 64 px | not published | 20.5 on CC12M |
| full16, full32, full64 | growing, G 0.98 B and D | 450 A100-days each | 7.3 after full64_text |
| full64_text | the text encoder, D | 190 A100-days | 7.3 |
| full128, full256, full512 | growing on, G 1.02 B and D | 96, 70, 30 A100-days | 13.9 at 256 px |
| lite128_freeze64 ... | blocks above 64 px and all ToRGB | not published | not published |

Each growing phase starts from the one before, --config.init_from=WORKDIR_OF_THE_EARLIER_PHASE: its
generator and discriminator, from full128 on also the tower that full64_text tuned, through which G
reads while D and the guidance keep the untuned one. The whole chain, which goes on where it was
stopped when it is started again:

    from=
    for phase in full16 full32 full64 full64_text full128 full256 full512; do
      python -m jaxt2i.train --config configs/stylegan_t.py:$phase --workdir runs/$phase \\
        --config.data.path=DIR ${from:+--config.init_from=$from} || break
      from=runs/$phase
    done
"""

from ml_collections import ConfigDict

from jaxt2i.configs import common
from jaxt2i.nn.optim import Adam
from jaxt2i.systems.stylegan_t.method import Model

# What the full model was trained on, 250 M pairs in all; weights are millions of pairs (sizes of
# FLAVA's selections; LAION-aesthetic 6+ is the rest).
MIX = (
    *(("cc3m", 2.7), ("cc12m", 11.0), ("yfcc", 30.3), ("redcaps", 11.6)),
    ("laion_aesthetic", 194.4),
)

# What every published preset sees through, and what the full ones are trained on.
SEES = "CLIP ViT-L/14 and DINO ViT-S/16, fetched once"
WEB = "250 M pairs of the web, the five collections of MIX as img2dataset writes them"
# Of phases that train a part of a generator.
UNCOUNTED = "not published, not counted (all of lite256: about 136 on an A100)"


def get_config(preset: str | None = None) -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(PRESETS, preset)


def embedded() -> ConfigDict:
    """Two CPU cores, procedural `blooms` at 32 px, shipped mini CLIP; about 12 minutes.

    The Frechet distance to held-out pictures in mini-CLIP features falls from 1.5 to 0.12 after
    8,000 images and to 0.04 at the end; R-precision among 100 rises from 0.01 to 0.61 (real:
    0.73; benchmarks/results/stylegan_t_embedded_curves.png). After 8,000 images
    python -m jaxt2i.evaluate recognises 15 % of what captions promise (real pictures: 90 %):
    recognised_promises 0.150 (0.138 to 0.163), recognised_frechet 4.24 (real: 0.12).
    What differs from the published recipe buys speed at this size: four times G's learning rate,
    plain means of the hinge terms (the guidance would drown them in so short a run), no blur, no
    colour augmentation, and one latent batch for both players.
    """
    c = published(32, 30_000)
    c.matmul_precision, c.perception_precision = "default", ""
    c.batch_size, c.accumulate = 8, 1
    c.log_every_steps = 50
    c.checkpoint_every_steps = 250
    c.sample_every_steps = 500
    c.data.update(source="synthetic", corpus="blooms", tokenizer="mini", tokens=32)
    c.optim.g.lr = 0.008
    c.model.update(
        perception="mini",
        channel_base=1024,
        channel_max=128,
        res_blocks=1,
        hinge_over_micro_batch=False,
        clip_weight=0.3,
        augment="translation,cutout",
        blur_init_sigma=0.0,
        ema_images=2000,
        shared_z=True,
    )
    return c


def emoji(resolution: int = 32) -> ConfigDict:
    """Emoji at 32 px, two CPU cores, through a CLIP that was trained on them.

    python -m jaxt2i.prepare emoji and configs/clip.py:emoji come first. Pictures stay within their
    range by a tanh, and a head that sees pixels judges beside the small CLIP's features. After
    8,000 pictures an independent CLIP's Frechet distance is 0.12 with both, 0.18 with the tanh
    alone, 0.27 with the head alone and 0.26 with neither, in pure colours; by the guide's own
    R-precision the tanh alone is best (benchmarks/results/ablations_stylegan_t_emoji.json).

    On one core it took 37 minutes: the Frechet distance to held-out emoji in that CLIP's features
    falls to 0.09; people have heads, shoulders and their skin's colour, faces are round and yellow.
    A CLIP of another seed and shape finds the group of 33 % of the pictures (51 % of real ones,
    20 % by chance; benchmarks/results/stylegan_t_emoji.json).
    """
    c = common.emoji(embedded(), resolution, "clip")
    c.total_images = 40_000
    c.model.update(bound="tanh", pixel_head=32)
    return c


def emoji64() -> ConfigDict:
    """The same at 64 px, wider, for one GPU, after configs/clip.py:emoji64; not yet seen."""
    c = emoji(64)
    c.batch_size = 64
    c.total_images = 1_000_000
    c.model.update(channel_base=4096, channel_max=256, micro_batch=8, pixel_head=64)
    return c


def tiny() -> ConfigDict:
    """Compiles in seconds: for smoke tests, not for pictures."""
    c = embedded()
    c.total_images = 64
    c.batch_size = 8
    c.log_every_steps = 1
    c.sample_every_steps = 4
    c.checkpoint_every_steps = 4
    c.grid.count = 4
    c.score_images = 16
    c.data.resolution = 16
    c.model.update(channel_base=1024, channel_max=32, z_dim=16, micro_batch=4)
    c.promise.update(steps=150, margin=ConfigDict({"frechet": 0.2}))
    return c


def published(resolution: int, images: float) -> ConfigDict:
    """What every published configuration shares, at batch 2048."""
    c = common.base()
    c.method = "jaxt2i.systems.stylegan_t"
    c.batch_size = 2048
    c.accumulate = "auto"
    c.total_images = int(images)
    c.log_every_steps = 50
    c.checkpoint_every_steps = 500
    c.sample_every_steps = 500
    c.score_images = 256
    # The official training turns TF32 off, and its perception is float32.
    c.matmul_precision = c.perception_precision = "float32"
    c.data.update(source="webdataset", tokenizer="clip", tokens=77, resolution=resolution)
    for player in ("g", "d"):
        c.optim[player] = common.section(Adam, lr=0.002, zero_nonfinite=True)
    c.model = common.section(Model)
    return c


def full(resolution: int, iterations: int, before: int = 0) -> ConfigDict:
    """The 1 B generator, after `before` iterations; needs fsdp on chips with 16 GiB."""
    c = published(resolution, iterations * 2048)
    c.model.blur_start_images = before * 2048.0
    c.model.update(channel_base=65536, channel_max=2048, res_blocks=3)
    c.sharding = ((".", "fsdp"),)
    c.data.web.mix = MIX
    return c


@common.card(
    data="CC12M as img2dataset writes it",
    weights=SEES,
    millions=25.0,
    tflop=0.84,  # benchmarks/results/compile_cpu.json
    rate="bfloat16",
    expected="FID-30k 20.5 on COCO, zero-shot, with everything on",
)
def lite64() -> ConfigDict:
    """The ablation's generator, 75 M, at 64 px from scratch; length and batch are not published."""
    return published(64, 25e6)


@common.card(
    data="CC12M as img2dataset writes it",
    weights=SEES,
    millions=25.0,
    tflop=1.84,
    rate="bfloat16",
    expected="unknown",
)
def lite256() -> ConfigDict:
    """The same generator at 256 px from scratch; a size to measure speed with."""
    return published(256, 25e6)


@common.card(
    data=WEB,
    weights=SEES,
    hours="10,800 A100-hours, the paper's 450 A100-days",
    expected="FID-30k 7.30 on COCO at 64 px after full64_text",
)
def full16() -> ConfigDict:
    """Phase 1 of 7, 16 px: 118k iterations of 2048."""
    return full(16, 118_000)


@common.card(
    data=WEB,
    weights=f"{SEES}; init_from full16",
    hours="10,800 A100-hours, the paper's 450 A100-days",
    expected="FID-30k 7.30 on COCO at 64 px after full64_text",
)
def full32() -> ConfigDict:
    """Phase 2 of 7, 32 px: 78k iterations."""
    return full(32, 78_000, 118_000)


@common.card(
    data=WEB,
    weights=f"{SEES}; init_from full32",
    hours="10,800 A100-hours, the paper's 450 A100-days",
    expected="FID-30k 7.30 on COCO at 64 px after full64_text",
)
def full64() -> ConfigDict:
    """Phase 3 of 7, 64 px: 57k iterations."""
    return full(64, 57_000, 196_000)


@common.card(
    data=WEB,
    weights=f"{SEES}; init_from full64",
    hours="4,560 A100-hours, the paper's 190 A100-days",
    expected="FID-30k 7.30 on COCO at 64 px, zero-shot",
)
def full64_text() -> ConfigDict:
    """Phase 4 of 7, 64 px, CLIP's text tower alone: 20k iterations, lr 3e-6, guidance weight 50."""
    c = full(64, 20_000, 253_000)
    c.model.update(train_mode="text_encoder", clip_weight=50.0)
    c.optim.g.lr = 3e-6
    return c


def tuned(resolution: int, iterations: int, before: int) -> ConfigDict:
    """The phases whose G reads with the tower that full64_text tuned."""
    c = full(resolution, iterations, before)
    c.model.tuned_text = True
    return c


@common.card(
    data=WEB,
    weights=f"{SEES}; init_from full64_text",
    hours="2,304 A100-hours, the paper's 96 A100-days",
    expected="FID-30k 13.90 on COCO at 256 px after full256",
)
def full128() -> ConfigDict:
    """Phase 5 of 7, 128 px: 10k iterations."""
    return tuned(128, 10_000, 273_000)


@common.card(
    data=WEB,
    weights=f"{SEES}; init_from full128",
    hours="1,680 A100-hours, the paper's 70 A100-days",
    expected="FID-30k 13.90 on COCO at 256 px, zero-shot",
)
def full256() -> ConfigDict:
    """Phase 6 of 7, 256 px: 6k iterations."""
    return tuned(256, 6_000, 283_000)


@common.card(
    data=WEB,
    weights=f"{SEES}; init_from full256",
    hours="720 A100-hours, the paper's 30 A100-days",
    expected="FID-30k 13.90 on COCO, its pictures at 256 px",
)
def full512() -> ConfigDict:
    """Phase 7 of 7, 512 px: 3k iterations."""
    return tuned(512, 3_000, 289_000)


def freeze64(resolution: int, phases: int) -> ConfigDict:
    """The official repository's recipe for high resolutions: new blocks and all ToRGB layers."""
    c = published(resolution, 25e6)
    c.model.blur_start_images = phases * 25e6
    c.model.train_mode = "freeze64"
    return c


@common.card(
    data="CC12M as img2dataset writes it",
    weights=f"{SEES}; init_from lite64",
    hours=UNCOUNTED,
    expected="unknown",
)
def lite128_freeze64() -> ConfigDict:
    """Lite generator at 128 px on top of a trained lite64."""
    return freeze64(128, 1)


@common.card(
    data="CC12M as img2dataset writes it",
    weights=f"{SEES}; init_from lite128_freeze64",
    hours=UNCOUNTED,
    expected="unknown",
)
def lite256_freeze64() -> ConfigDict:
    """Lite generator at 256 px on top of a trained lite128_freeze64."""
    return freeze64(256, 2)


@common.card(
    data="CC12M as img2dataset writes it",
    weights=f"{SEES}; init_from lite256_freeze64",
    hours=UNCOUNTED,
    expected="unknown",
)
def lite512_freeze64() -> ConfigDict:
    """Lite generator at 512 px on top of a trained lite256_freeze64."""
    return freeze64(512, 3)


PRESETS = {
    f.__name__: f
    for f in (
        embedded,
        emoji,
        emoji64,
        tiny,
        lite64,
        lite256,
        full16,
        full32,
        full64,
        full64_text,
        full128,
        full256,
        full512,
        lite128_freeze64,
        lite256_freeze64,
        lite512_freeze64,
    )
}
