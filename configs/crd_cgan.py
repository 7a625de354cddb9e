"""CRD-CGAN (Hu et al. 2024): --config configs/crd_cgan.py[:preset].

Like AttnGAN it starts from a DAMSM: the bare command trains `embedded` on that of
`python -m jaxt2i.train --config configs/damsm.py`; configs/attngan.py says how the published
encoders are converted.

| preset | data | captions a step (x 2 pictures) | epochs | published |
|---|---|---|---|---|
| embedded | blooms, 32 px | 16 | 3,000 steps | - |
| no_attention, no_diversity, no_relativistic, no_category | the same | 16 | the same | ablations |
| basic | the same | 16 | the same | none of the four |
| emoji | emoji, 32 px | 16 | 3,000 steps, not yet seen | - |
| cub | CUB-200-2011, 256 px | 20 | 600 | not found |
| oxford102 | Oxford-102, 256 px | 20 | 600 | not found |
| coco | COCO 2014, 256 px | 14 | 120 | not found |

The hyper-parameters are AttnGAN's; CRD-CGAN's own are not public.

The ablations after 1,000 steps (benchmarks/results/ablations_crd_cgan.json; one run of each):
pictures of a caption differ most with all four terms, by 0.116 in a recogniser's features; without
the diversity loss by 0.092, without the relativistic one by 0.099, with none by 0.082. The
relativistic term costs R-precision (0.33 with all, 0.52 without it), the diversity term the
recogniser's Frechet distance (2.59, and 2.03 without it). The category and attention terms change
little at this size.
"""

from ml_collections import ConfigDict

from jaxt2i.configs import attngan, common
from jaxt2i.systems.crd_cgan.method import Model


def get_config(preset: str | None = None) -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(PRESETS, preset)


def published(batch_size: int, epochs: int, classes: int) -> ConfigDict:
    """AttnGAN's run and optimisers with CRD-CGAN's settings."""
    c = attngan.published(batch_size, epochs)
    c.method = "jaxt2i.systems.crd_cgan"
    c.model = common.section(Model, classes=classes)
    return c


def embedded() -> ConfigDict:
    """Two CPU cores, procedural `blooms` of 24 classes, stages of 8, 16 and 32 px.

    By the DAMSM that guides the run, the Frechet distance to held-out pictures in its codes falls
    from 1.92 to 0.15 after 1,000 steps and 0.086 at the end; R-precision among 100 rises from 0.01
    to 0.48 (0.55 after 2,000 steps). A recogniser tells bird from flower as asked in 83 % of 1,000
    pictures and finds the colour in 34 % (real ones: 92 %). Flowers are round and of the asked
    colour, birds are small blots. It takes 16 minutes on one of two cores
    (benchmarks/results/crd_cgan_embedded.json).
    """
    return attngan.small(published(16, 0, 24))


def no_attention() -> ConfigDict:
    """The ablation: `embedded` without the attention loss."""
    c = embedded()
    c.model.attention_loss = "off"
    return c


def no_diversity() -> ConfigDict:
    """The ablation: `embedded` without the diversity loss (see above)."""
    c = embedded()
    c.model.diversity_weight = 0.0
    return c


def no_relativistic() -> ConfigDict:
    """The ablation: `embedded` with the basic conditional loss."""
    c = embedded()
    c.model.relativistic = False
    return c


def no_category() -> ConfigDict:
    """The ablation: `embedded` without the category-consistent loss."""
    c = embedded()
    c.model.category_weight = 0.0
    return c


def basic() -> ConfigDict:
    """The ablation of all four: AttnGAN, two pictures of a caption at once."""
    c = no_relativistic()
    c.model.update(attention_loss="off", diversity_weight=0.0, category_weight=0.0)
    return c


def emoji() -> ConfigDict:
    """Emoji at 32 px, two CPU cores, through a DAMSM that was trained on them; nine groups.

    python -m jaxt2i.prepare emoji and configs/damsm.py:emoji come first. Not yet seen.
    """
    c = common.emoji(embedded(), 32, "damsm")
    c.init_from = ""
    c.model.classes = 9
    return c


def tiny() -> ConfigDict:
    """Compiles in seconds: for smoke tests, not for pictures."""
    c = attngan.smoke(embedded())
    # Measured with one seed: 0.005 of 0.014 gained, in the features of random encoders.
    c.promise.update(steps=150, margin=ConfigDict({"frechet": 0.002}))
    return c


@common.card(
    data="CUB-200-2011, 8,855 pictures; python -m jaxt2i.prepare cub",
    weights="the published DAMSM of birds, converted (configs/attngan.py says how)",
    hours="48 at the least on 16 TPU v5e chips together, as planned for 5.3 M captions in batches "
    "of 32, which they can share (benchmarks/results/plan_crd_cgan_cub_v5e_4x4.json)",
    expected="unknown",
)
def cub() -> ConfigDict:
    """CUB-200-2011: 8,855 birds of 150 of its 200 classes."""
    return published(20, 600, 200)


@common.card(
    data="Oxford-102, 7,034 pictures; python -m jaxt2i.prepare oxford102",
    weights="runs/damsm-oxford102, which configs/damsm.py:oxford102 trains first",
    hours="not counted; python -m jaxt2i.plan counts a step",
    expected="unknown",
)
def oxford102() -> ConfigDict:
    """Oxford-102: 7,034 flowers of 82 of its 102 classes, after configs/damsm.py:oxford102."""
    c = published(20, 600, 102)
    c.perception_from = "runs/damsm-oxford102"
    return c


@common.card(
    data="COCO 2014, 82,783 pictures; python -m jaxt2i.prepare coco",
    weights="the published DAMSM of COCO, converted (configs/attngan.py says how)",
    hours="not counted; python -m jaxt2i.plan counts a step",
    expected="unknown",
)
def coco() -> ConfigDict:
    """COCO 2014: the classes of all objects of a picture; DAMSM loss of weight 50."""
    c = published(14, 120, 80)
    c.data.update(tokens=12, objects=64)
    c.model.update(text_vocab=27297, g_base=48, d_base=96, residuals=3)
    c.model.update(damsm_weight=50.0, class_mask=False, labels="multi")
    return c


PRESETS = {
    f.__name__: f
    for f in (
        *(embedded, no_attention, no_diversity, no_relativistic, no_category, basic),
        *(emoji, tiny),
        *(cub, oxford102, coco),
    )
}
