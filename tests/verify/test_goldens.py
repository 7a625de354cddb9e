"""Every stored case that has a runner; `python -m jaxt2i.verify` prints the same as a table."""

import gc
from functools import lru_cache
from pathlib import Path

import jax
import pytest

from jaxt2i.verify import __main__ as verify
from jaxt2i.verify.check import check
from jaxt2i.verify.find import runner
from jaxt2i.verify.golden import Golden

GOLDENS = Path(__file__).parents[1] / "goldens"
# Losses and whole steps at published sizes.
SLOW = {
    *("stylegan_t/loss_all", "stylegan_t/loss_text_encoder"),
    "damsm/pretrain_step",
    *(f"{m}/{case}" for m in ("attngan", "dm_gan") for case in ("netD256", "losses", "train_step")),
    *(f"{m}/{case}" for m in ("galip", "df_gan") for case in ("loss_D", "loss_G", "train_step")),
    *(f"textcontrol_gan/{case}" for case in ("generator", "regressor", "step_losses")),
}
# Whole steps, whose networks, losses and gradients other cases hold, and the losses at 256 pixels
# that the attentional GANs share: `pytest -m full` and `python -m jaxt2i.verify` run them too.
FULL = {
    # The losses on all three networks, and the regressor, which has the critic's trunk; the other
    # networks and their parts are with the rest.
    *("textcontrol_gan/step_losses", "textcontrol_gan/regressor"),
    *("attngan/losses", "attngan/train_step", "dm_gan/train_step", "galip/train_step"),
    *("damsm/pretrain_step", "stylegan_t/loss_text_encoder", "souza_single_stage/g_step"),
    # One loss of two, at 224 and 256 pixels; forward passes and smaller networks are with the rest.
    *("df_gan/train_step", "df_gan/loss_G", "galip/loss_G", "dm_gan/losses"),
    # The detector at its published width, and pictures of 64 pixels; those of 256 show the layers.
    *("yolov3/full_forward64", "yolov3/forward64"),
    # OP-GAN's larger discriminators, its generator with gradients and at its published width, its
    # step, and DAMSM's encoders and losses with another's numbers.
    *(f"op_gan/d{size}_{c}" for size in (128, 256) for c in ("train", "eval", "eval_0obj")),
    *(f"op_gan/d{size}_eval_align_true" for size in (128, 256)),
    *(f"op_gan/loss_d{size}_{c}" for size in (128, 256) for c in ("bbox", "nobbox")),
    *(f"op_gan/d64_{c}" for c in ("train", "eval", "eval_0obj")),
    *("op_gan/loss_d64_nobbox", "op_gan/train_step"),
    *("op_gan/g_eval", "op_gan/g_eval_align_true", "op_gan/g_full_eval"),
    *("op_gan/g_train", "op_gan/g_train_0obj"),
    # Obj-GAN's shape generator at its published width, its losses on all networks, and a decoder of
    # boxes that does not look at words.
    *("obj_gan/shape_g_full", "obj_gan/shape_losses", "obj_gan/box_train"),
    *("op_gan/rnn_encoder", "op_gan/cnn_encoder", "op_gan/damsm_losses"),
    # Latent diffusion's U-Net and ControlNets by themselves, their loop and their gradients; both
    # together, the autoencoder and the text tower are with the rest.
    *(f"iir_net/{c}" for c in ("unet", "controlnet3", "controlnet4", "cfg_loop", "train_loss")),
    # Obj-GAN's generator and discriminators, its whole loss, and encoders and losses with another's
    # numbers; attention, RoIAlign and layouts are with the rest.
    *(f"obj_gan/g_{c}" for c in ("full_eval", "small_eval", "small_train", "small_train_dot")),
    *(f"obj_gan/{c}" for c in ("patd", "patd_full_eval", "shpd", "g_loss", "cnn_encoder")),
    *(f"obj_gan/{c}" for c in ("objd_small_scale", "objd_large_scale")),
    *("obj_gan/rnn_encoder", "obj_gan/damsm_losses"),
    # A loss of a discriminator at 256 pixels; its parts, and a small one's, are with the rest.
    "df_gan/loss_D",
    # The smallest discriminator's loss with layouts; its network is with the others above.
    "op_gan/loss_d64_bbox",
    # Networks that the two attentional GANs share, with another's numbers.
    *("dm_gan/netG_train_b4", "dm_gan/netG_coco_eval_b2", "attngan/netD256", "attngan/netD128"),
    *("attngan/netG_coco_eval_b2", "attngan/netG_eval_b1", "dm_gan/netG_eval_b1", "dm_gan/netD256"),
    # StyleGAN-T's losses on all networks: both players' gradients, guidance and the terms are with
    # the rest. Its generator and discriminator at another size, and on augmented pictures, whose
    # resizes and augmentation have cases of their own.
    *(f"stylegan_t/{c}" for c in ("loss_all", "g128_eval", "d_eval_256", "d_diffaug_64")),
    # The gradients of Souza's discriminator: its forward pass and its losses are with the rest.
    "souza_single_stage/d_step",
    # CLIP at its published width: small towers of every activation, GALIP's own among them, are
    # with the rest, and the published picture tower within the generator. The discriminator's loss
    # on it, whose networks and blocks are.
    *(f"galip/{c}" for c in ("text_encoder", "image_encoder", "loss_D")),
    # Inception on pictures of other sizes than one a way of resizing, whose own cases are with the
    # rest (metrics/resize), and DAMSM's on pictures that are resized first.
    *(f"inception_fid/{c}" for c in ("torchfidelity_64", "torchfidelity_256", "cleanfid_400x360")),
    *("inception_fid/torchvision/galip_generator_256", "damsm/image_encoder_eval256"),
    # One network's options with another's numbers.
    *("lpips/squeeze/variants", "lpips/vgg/variants", "dino_vits16/img_256"),
    *(f"clip_hf/laion_gelu/{c}" for c in ("image_gradient", "image_interpolated_40x56")),
}
FOLDERS = verify.folders(GOLDENS)


@lru_cache(maxsize=1)
def golden(folder):
    # Weights are drawn once a folder, and go when the next one comes. The published CLIP's are not
    # kept: a runner asks for parts.
    return Golden(FOLDERS[folder])


def cases():
    for folder in FOLDERS:
        for case in golden(folder).cases:
            name = f"{folder}/{case}"
            if runner(folder, case):
                marks = [pytest.mark.slow] if name in SLOW else []
                marks += [pytest.mark.full] if name in FULL else []
                # A folder's cases share weights: one worker draws them.
                marks.append(pytest.mark.xdist_group(folder))
                yield pytest.param(folder, case, id=name, marks=marks)


HELD = []


@pytest.fixture(autouse=True)
def forget(folder):
    """No folder runs another's programs, and published sizes are gigabytes."""
    if folder not in HELD:
        jax.clear_caches()
        HELD[:] = [folder]
    yield
    gc.collect()


@pytest.mark.parametrize(("folder", "case"), list(cases()))
def test_case(folder, case):
    run = runner(folder, case)
    lines = list(check(golden(folder), f"{folder}/{case}", case, run))
    wrong = [f"{x.output}: {x.note or x.result}" for x in lines if x.status == "FAIL"]
    assert lines
    assert not wrong, "\n".join(wrong)
