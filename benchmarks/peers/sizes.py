"""What is compared: the sizes of each system, the same for both sides.

`published` is the official configuration (for CUB; GALIP: for COCO; StyleGAN-T: the ablation's lite
generator at 64 px) with a batch that two CPU cores can do; `small` is narrow, for short runs;
`tiny` is for tests: no official code is so small. Official code fixes many sizes: GALIP's bridge,
discriminator and pictures and most of its CLIP, AttnGAN's and DM-GAN's pictures from 64 px on and
their Inception at 299 px. There `small` narrows the rest.
"""

DF_GAN = {"z_dim": 100, "sentence": 256, "vocab": 5450, "tokens": 18}
# OpenAI's ViT-B/32, by the fields of the library's image tower.
VIT_B32 = {"resolution": 224, "patch": 32, "width": 768, "layers": 12, "heads": 12, "mlp_ratio": 4}
GALIP = {
    "z_dim": 100,
    "sentence": 512,
    "vocab": 49408,
    "tokens": 77,
    "resolution": 224,
    "real": 256,
    "clip": VIT_B32,
}
STYLEGAN_T = {"z_dim": 64, "sentence": 768, "vocab": 49408, "tokens": 77}
STAGED = {"z_dim": 100, "c_dim": 100, "sentence": 256, "vocab": 5450, "tokens": 18, "residuals": 2}

SIZES = {
    "df_gan": {
        "published": DF_GAN | {"resolution": 256, "base": 32, "batch": 8},
        "small": DF_GAN | {"resolution": 32, "base": 16, "batch": 16},
        "tiny": DF_GAN | {"z_dim": 4, "resolution": 8, "base": 2, "batch": 4},
    },
    "galip": {
        "published": GALIP | {"g_base": 64, "batch": 4},
        "small": GALIP | {"g_base": 64, "batch": 2},
    },
    "stylegan_t": {
        "published": STYLEGAN_T
        | {"resolution": 64, "channel_base": 32768, "channel_max": 512, "res_blocks": 2}
        | {"clip_weight": 0.2, "batch": 8},
        "small": STYLEGAN_T
        | {"resolution": 32, "channel_base": 2048, "channel_max": 128, "res_blocks": 1}
        | {"clip_weight": 0.0, "batch": 4},
    },
    "attngan": {
        "published": STAGED
        | {"resolution": 256, "stages": 3, "g_base": 32, "d_base": 64, "batch": 4},
        "small": STAGED | {"resolution": 128, "stages": 2, "g_base": 8, "d_base": 8, "batch": 4},
    },
    "dm_gan": {
        "published": STAGED
        | {"resolution": 256, "stages": 3, "g_base": 64, "d_base": 32, "batch": 4},
        "small": STAGED | {"resolution": 128, "stages": 2, "g_base": 8, "d_base": 8, "batch": 4},
    },
}

# What learns side by side in minutes: the sizes of our short runs, as far as the official code can.
MINI = {"perception": "mini", "sentence": 64, "tokens": 32, "lr": (5e-4, 1e-3)}
SHORT = STAGED | {"z_dim": 32, "c_dim": 32, "residuals": 1, "lr": (1e-3, 1e-3)}
# GALIP's drawings of 224 px are many numbers, so few of them are made at once.
MINI_GALIP = {"z_dim": 100, "tokens": 32, "vocab": 49408, "lr": (1e-4, 4e-4)}
# Without augmentation; the blur fades out within the run.
MINI_STYLEGAN_T = {"tokens": 32, "augment": "", "blur_init_sigma": 2.0, "blur_fade_images": 2000.0}
MINI_STYLEGAN_T |= {"draws_each": True}
MINI_STYLEGAN_T |= {"sentence": 64, "res_blocks": 1, "clip_weight": 0.2, "lr": (2e-3, 2e-3)}
# A caption of each picture, as the official command lines have it.
SOUZA = {"draws_each": True, "interpolate": False, "lr": (1e-4, 4e-4)}
SHORT |= {"resolution": 128, "stages": 2, "g_base": 8, "d_base": 8, "batch": 4}
PARITY = {
    "df_gan": {
        "small": MINI | {"z_dim": 100, "resolution": 32, "base": 16, "batch": 16},
        "tiny": MINI | {"z_dim": 4, "resolution": 16, "base": 2, "batch": 4},
    },
    "galip": {
        "small": MINI_GALIP
        | {"sentence": 512, "resolution": 224, "real": 256}
        | {"clip": VIT_B32 | {"mlp_ratio": 0.25}}
        | {"g_base": 8, "bridge_base": 64, "batch": 2, "at_once": 8},
        "tiny": MINI_GALIP
        | {"sentence": 64, "resolution": 16, "real": 16, "z_dim": 4}
        | {"clip": VIT_B32 | {"resolution": 32, "patch": 8, "width": 16, "heads": 2}}
        | {"g_base": 2, "bridge_base": 4, "d_base": 2, "batch": 4},
    },
    "stylegan_t": {
        "small": MINI_STYLEGAN_T
        | {"z_dim": 64, "resolution": 32, "channel_base": 1024, "channel_max": 128, "batch": 8}
        | {"clip": VIT_B32 | {"width": 64, "layers": 2, "heads": 2}}
        | {"dino": {"resolution": 224, "width": 96, "heads": 3, "mlp_ratio": 4}},
        "tiny": MINI_STYLEGAN_T
        | {"z_dim": 4, "resolution": 8, "channel_base": 256, "channel_max": 32, "batch": 4}
        | {"clip": VIT_B32 | {"resolution": 16, "patch": 8, "width": 16, "layers": 1, "heads": 2}}
        | {"dino": {"resolution": 32, "width": 16, "heads": 2, "mlp_ratio": 4}},
    },
    "souza": {
        "small": MINI
        | {"z_dim": 128, "resolution": 256, "g_base": 8, "d_base": 8, "batch": 4, "at_once": 8}
        | SOUZA,
        "tiny": MINI
        | {"z_dim": 4, "resolution": 8, "g_base": 8, "d_base": 8, "batch": 4}
        | SOUZA
        | {"attention": 8},
    },
    # Today's PyTorch resizes as align_corners=False where the code says nothing.
    "attngan": {"small": SHORT | {"align_corners": False}},
    "dm_gan": {"small": SHORT},
}


def draws(size: dict) -> dict[str, int]:
    """{row: numbers a picture} of what a training step draws, for both sides alike.

    "z" is the latent, of D's turn where the size says that the players draw each their own; the
    others are G's latent and the noise of StyleGAN-T's layers.
    """
    out = {"z": size["z_dim"] + size.get("c_dim", 0)}
    if size.get("draws_each"):
        out["z_g"] = out["z"]
    if "res_blocks" in size:
        powers = [1 << k for k in range(3, size["resolution"].bit_length())]
        layers = [2 * size["res_blocks"] + (n > 8) for n in powers]
        noise = sum(n * n * count for n, count in zip(powers, layers, strict=True))
        out |= {"noise_d": noise, "noise_g": noise}
    return out


# Where the official code is published, for a sentence that says what is missing.
WHERE = {
    "df_gan": "tobran/DF-GAN",
    "galip": "tobran/GALIP",
    "souza": "dougsouza/efficient-t2i",
    "stylegan_t": "autonomousvision/stylegan-t",
    "attngan": "taoxugit/AttnGAN",
    "dm_gan": "MinfengZhu/DM-GAN",
}
