"""Latent diffusion: python -m jaxt2i.train --config configs/latent_diffusion.py[:preset].

The bare command trains `embedded`: a small U-Net on the pixels of procedural flowers and birds,
which reads captions through the shipped mini CLIP, no download. `sd15` is Stable Diffusion 1.5:

    hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --include '*.json' \\
      --include '*.safetensors' --local-dir DIR
    python -m jaxt2i.convert diffusion --from DIR --to weights/sd15     # or a single .safetensors
    python -m jaxt2i.sample --config configs/latent_diffusion.py:sd15 --weights weights/sd15 \\
      --prompts "a red house in the snow" --set guidance=7.5 steps=50 solver=dpmpp_2m

| preset | data | batch | length |
|---|---|---|---|
| embedded | blooms, 32 px, no autoencoder | 16 | see its docstring |
| sd15 | pictures of the web, 512 px | 2048 | 595,000 steps |
"""

from ml_collections import ConfigDict

from jaxt2i.configs import common
from jaxt2i.nn.optim import Adam
from jaxt2i.systems.latent_diffusion.method import Model


def get_config(preset: str | None = None) -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(PRESETS, preset)


@common.card(
    data="pictures of the web as img2dataset writes them",
    weights="Stable Diffusion's networks, whose folder or file config.model.sd_weights names",
    hours="150,000 A100-hours for version 1, as its model card counts",
    expected="not yet seen",
)
def sd15() -> ConfigDict:
    """Stable Diffusion 1.5: 595,000 steps from the weights of version 1.2, by its model card."""
    c = common.base()
    c.method = "jaxt2i.systems.latent_diffusion"
    c.batch_size = 2048
    c.accumulate = "auto"
    c.total_steps = 595_000
    c.log_every_steps = 50
    c.checkpoint_every_steps = 500
    c.sample_every_steps = 500
    c.score_images = 64
    c.data.update(source="webdataset", tokenizer="clip", tokens=77, resolution=512)
    c.optim.unet = common.section(
        Adam, lr=1e-4, b1=0.9, b2=0.999, weight_decay=0.01, warmup_steps=10_000
    )
    c.model = common.section(Model)
    return c


def embedded() -> ConfigDict:
    """Two CPU cores, procedural `blooms` at 32 px, captions read by the shipped mini CLIP.

    The Frechet distance to held-out pictures in mini-CLIP features falls from 1.68 to 0.56 after
    16,000 images and to 0.24 at the end; R-precision among 64 rises from 0.02 to 0.36. Flowers have
    the colours of their captions, birds are still blots; some pictures are grainy
    (benchmarks/results/latent_diffusion_embedded.json). With weighting="min_snr" and a constant
    rate R-precision was 0.44 after 48,000 images, and grain (pixels/spectrum) 0.11 instead of 0.07.
    """
    c = sd15()
    c.batch_size, c.accumulate = 16, 1
    c.total_steps = 4000
    c.score_images, c.sample_every_steps = 64, 1000
    c.data.update(source="synthetic", corpus="blooms", tokenizer="mini", tokens=32, resolution=32)
    c.optim.unet.update(lr=1e-3, warmup_steps=100, decay_steps=4000, weight_decay=0.0)
    c.model.update(
        perception="mini",
        from_scratch=True,
        space="pixels",
        padding="tokenizer",
        channels=(16, 32, 64),
        layers=1,
        heads=4,
        groups=8,
        attention=(False, False, True),
        ema_images=4000.0,
        guidance=3.0,
        steps=25,
        score_steps=12,
    )
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
    c.optim.unet.warmup_steps = 0
    c.model.update(channels=(8,), attention=(False,), steps=4, score_steps=4)
    c.promise.update(steps=60, margin=ConfigDict({"denoising": 0.2}))
    return c


PRESETS = {f.__name__: f for f in (embedded, tiny, sd15)}
