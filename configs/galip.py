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
| coco_stuff | COCO-Stuff (COCO 2017) | 512 | 100 M pictures | unknown |
| visual_genome | Visual Genome | 512 | 100 M pictures | unknown |
| ade20k | ADE20K | 512 | 20 M pictures | unknown |
| fashiongen | FashionGen | 512 | 100 M pictures | unknown |
| multi30k, multi30k_de | Multi30K | 512 | 20 M pictures | unknown |
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

from configs import common
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
    c.batch_size = 16
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

    python -m jaxt2i.prepare emoji and configs/clip.py:emoji come first.
    """
    c = common.emoji(embedded(), resolution, "clip")
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


def cub() -> ConfigDict:
    """CUB-200-2011: 8,855 birds; the official upper bound is 1,501 epochs. FID 10.08."""
    return published(1501)


def oxford102() -> ConfigDict:
    """Oxford-102: 7,034 flowers, with CUB's settings; not published."""
    return published(1501)


def coco() -> ConfigDict:
    """COCO 2014: 82,783 pictures, about 1,000 epochs on 8 GPUs of 24 GB. FID 5.85."""
    return published(1000)


def unpublished(millions: int, crop: str = "random") -> ConfigDict:
    """A data set that nobody has published numbers of, for so many million pictures."""
    c = published(0)
    c.total_images = millions * 1_000_000
    c.data.crop = crop
    return c


def coco_stuff() -> ConfigDict:
    """COCO-Stuff: COCO 2017's 118,287 pictures and captions; boxes and masks stay unused here.

    100 M pictures are 845 epochs. Data: prepare coco_stuff. Weights: CLIP ViT-B/32. FID unknown.
    """
    return unpublished(100)


def visual_genome() -> ConfigDict:
    """Visual Genome: 108,077 pictures, each with dozens of phrases about parts of it.

    100 M pictures are 925 epochs. Data: prepare visual_genome. Weights: CLIP ViT-B/32. FID unknown.
    """
    return unpublished(100)


def ade20k() -> ConfigDict:
    """ADE20K: 20,210 pictures; captions are yours, else composed of scene and objects.

    20 M pictures are 990 epochs. Data: prepare ade20k. Weights: CLIP ViT-B/32. FID unknown.
    """
    return unpublished(20)


def fashiongen() -> ConfigDict:
    """FashionGen: 260,490 pictures of clothes on white with their descriptions, seen whole.

    100 M pictures are 384 epochs. Data: prepare fashiongen. Weights: CLIP ViT-B/32. FID unknown.
    """
    return unpublished(100, "centre")


def multi30k() -> ConfigDict:
    """Multi30K, English: 29,000 pictures with five captions each (its task 2).

    20 M pictures are 690 epochs. Data: prepare multi30k/task2. Weights: CLIP ViT-B/32. FID unknown.
    """
    c = unpublished(20)
    c.data.languages = ("en",)
    return c


def multi30k_de() -> ConfigDict:
    """Multi30K, German: the same pictures, read by M-CLIP's tower in CLIP ViT-B/32's space.

    Weights: M-CLIP/XLM-Roberta-Large-Vit-B-32, whose tokenizer.json lies in the folder
    --config.data.tokenizer. FID unknown.
    """
    c = multi30k()
    c.data.update(languages=("de",), tokenizer="mclip")
    c.model.perception = "mclip_b32"
    return c


def web(epochs: int) -> ConfigDict:
    """Web pictures as img2dataset wrote them."""
    c = published(epochs)
    c.data.source = "webdataset"
    return c


def cc3m() -> ConfigDict:
    """CC3M: the official loader reads it, settings are COCO's; no published FID."""
    return web(100)


def cc12m() -> ConfigDict:
    """CC12M: about 30 epochs; zero-shot FID on COCO 12.54."""
    return web(30)


def coco_b16() -> ConfigDict:
    """COCO around CLIP ViT-B/16: a grid of 14 x 14 patches."""
    c = coco()
    c.model.perception = "clip_b16"
    return c


def coco_l14() -> ConfigDict:
    """COCO around CLIP ViT-L/14: 24 blocks, so taps and prompts lie twice as deep."""
    c = coco()
    c.model.update(perception="clip_l14", taps=(3, 9, 17), first_prompt=2, prompts=16)
    return c


def coco_256() -> ConfigDict:
    """COCO at 256 px, CLIP's input range corrected."""
    c = coco()
    c.model.update(image_size=256, clip_input="clip")
    return c


def coco_512() -> ConfigDict:
    """COCO at 512 px: one block more."""
    c = coco_256()
    c.data.resolution = 512
    c.model.image_size = 512
    return c


PRESETS = {
    f.__name__: f
    for f in (
        embedded,
        emoji,
        emoji64,
        tiny,
        cub,
        oxford102,
        coco_stuff,
        visual_genome,
        ade20k,
        fashiongen,
        multi30k,
        multi30k_de,
        coco,
        cc3m,
        cc12m,
        coco_b16,
        coco_l14,
        coco_256,
        coco_512,
    )
}
