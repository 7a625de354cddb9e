"""What is compared: the sizes of each system, the same for both sides.

`published` is the official configuration (for CUB; GALIP: for COCO; StyleGAN-T: the ablation's lite
generator at 64 px) with a batch that two CPU cores can do; `small` is narrow, for short runs;
`tiny` is for tests: no official code is so small. Official code fixes many sizes: GALIP's CLIP and
bridge, AttnGAN's and DM-GAN's pictures from 64 px on and their Inception at 299 px, StyleGAN-T's
CLIP and DINO. There `small` narrows the rest.
"""

DF_GAN = {"z_dim": 100, "sentence": 256, "vocab": 5450, "tokens": 18}
GALIP = {
    "z_dim": 100,
    "sentence": 512,
    "vocab": 49408,
    "tokens": 77,
    "resolution": 224,
    "real": 256,
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
        "published": GALIP | {"base": 64, "batch": 4},
        "small": GALIP | {"base": 64, "batch": 2},  # its bridge has one width
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
SHORT |= {"resolution": 128, "stages": 2, "g_base": 8, "d_base": 8, "batch": 4}
PARITY = {
    "df_gan": {
        "small": MINI | {"z_dim": 100, "resolution": 32, "base": 16, "batch": 16},
        "tiny": MINI | {"z_dim": 4, "resolution": 16, "base": 2, "batch": 4},
    },
    # Today's PyTorch resizes as align_corners=False where the code says nothing.
    "attngan": {"small": SHORT | {"align_corners": False}},
    "dm_gan": {"small": SHORT},
}

# Where the official code is published, for a sentence that says what is missing.
WHERE = {
    "df_gan": "tobran/DF-GAN",
    "galip": "tobran/GALIP",
    "stylegan_t": "autonomousvision/stylegan-t",
    "attngan": "taoxugit/AttnGAN",
    "dm_gan": "MinfengZhu/DM-GAN",
}
