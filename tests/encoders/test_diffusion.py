import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxt2i.convert import rules
from jaxt2i.convert.__main__ import main
from jaxt2i.encoders import pretrained
from jaxt2i.encoders.clip import ClipText
from jaxt2i.encoders.diffusion import names
from jaxt2i.encoders.diffusion.control import ControlNet
from jaxt2i.encoders.diffusion.unet import UNet
from jaxt2i.encoders.diffusion.vae import VAE

FULL = json.loads((Path(__file__).parents[1] / "goldens/iir_net/full_tensors.json").read_text())
SIZES = {"channels": (8, 8, 16, 16), "layers": 2, "heads": 8, "context": 12}
SMALL = {
    "unet": UNet(**SIZES, groups=8),
    "vae": VAE(channels=(8, 8, 16, 16), groups=8),
    "text": ClipText(vocab=30, length=6, width=64, layers=2, heads=1, joint=0),
    "control": ControlNet(**SIZES, groups=8, condition_channels=4, embedding=(2, 3, 4)),
}


def published(net, four=False):
    """{key: an array that takes no memory} of the published file."""
    shapes = dict(FULL["controlnet" if net == "control" else names.FOLDERS[net]])
    shapes |= dict(FULL["controlnet_4ch_only_difference"]) if four else {}
    return {key: np.broadcast_to(np.int8(0), shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("net", "four"),
    [("unet", False), ("vae", False), ("control", False), ("control", True), ("text", False)],
)
def test_published_files_fit_the_default_networks(net, four):
    state = published(net, four)
    found = names.infer(net, state)
    config = FULL["configs"]["controlnet" if net == "control" else names.FOLDERS[net]]
    classed = config if net == "text" else config | {"_class_name": names.CLASSES[net]}
    found |= names.from_config(net, classed)
    kind = type(SMALL[net])
    module = kind(**found)
    if net == "text":
        assert (module.width, module.heads, module.joint) == (768, 12, 0)
    else:
        assert module == kind(condition_channels=4) if four else kind()
    variables, report = rules.to_flax(names.TABLES[net][0], state, None)
    assert not report.unused
    pretrained.fitting(variables, pretrained.template(module), "file")
    shapes = jax.tree.leaves(jax.tree.map(np.size, variables))
    name = {"control": "controlnet_4ch" if four else "controlnet", "text": "text_encoder"}
    assert sum(shapes) == FULL["parameters"][name.get(net, net)]
    assert set(rules.to_torch(names.TABLES[net][0], variables)) == set(state)


@pytest.fixture(scope="module")
def drawn():
    """{net: variables} of small networks."""
    rng = np.random.RandomState(0)
    return {
        net: jax.tree.map(
            lambda x: rng.standard_normal(x.shape).astype(np.float32), pretrained.template(module)
        )
        for net, module in SMALL.items()
    }


def written(drawn, table, net):
    tensors = rules.to_torch(names.TABLES[net][table], drawn[net])
    return {k: np.ascontiguousarray(x) for k, x in tensors.items()}


def test_a_folder_and_a_single_file_are_the_same_weights(drawn, tmp_path, capsys):
    single = {}
    for net, folder in names.FOLDERS.items():
        plain = written(drawn, 0, net)
        (tmp_path / "folder" / folder).mkdir(parents=True)
        save_file(plain, tmp_path / "folder" / folder / "model.safetensors")
        part = names.TABLES[net][-1].part
        single |= {part + k: x for k, x in written(drawn, -1, net).items()}
    single["cond_stage_model.transformer.text_model.embeddings.position_ids"] = np.arange(6)
    # Names and shapes as the original code's files have them.
    for key, shape in {
        "model.diffusion_model.input_blocks.7.0.skip_connection.weight": (16, 8, 1, 1),
        "model.diffusion_model.input_blocks.9.0.op.weight": (16, 16, 3, 3),
        "model.diffusion_model.output_blocks.2.1.conv.weight": (16, 16, 3, 3),
        "model.diffusion_model.output_blocks.8.2.conv.weight": (8, 8, 3, 3),
        "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.attn2.to_k.weight": (8, 12),
        "first_stage_model.decoder.up.3.upsample.conv.weight": (16, 16, 3, 3),
        "first_stage_model.encoder.down.2.block.0.nin_shortcut.weight": (16, 8, 1, 1),
        "first_stage_model.decoder.mid.attn_1.proj_out.bias": (16,),
        "control_model.zero_convs.11.0.bias": (16,),
        "control_model.input_hint_block.2.weight": (2, 2, 3, 3),
    }.items():
        assert single[key].shape == shape
    save_file(single, tmp_path / "v1.safetensors")
    for source in ("folder", "v1.safetensors"):
        to = tmp_path / f"of_{source}"
        assert main(["diffusion", "--from", str(tmp_path / source), "--to", str(to)]) == 0
        assert "unused: 0" in capsys.readouterr().out
        for net, want in drawn.items():
            got = pretrained.load(str(to), "diffusion", net)
            assert jax.tree.all(jax.tree.map(np.array_equal, want, got)), (net, source)
        got = pretrained.load(str(tmp_path / source), "diffusion", "text")
        assert jax.tree.all(jax.tree.map(np.array_equal, drawn["text"], got))


def test_old_names_of_the_autoencoder(drawn):
    old = written(drawn, 1, "vae")
    assert {"query", "proj_attn"} <= {key.split(".")[-2] for key in old}
    variables, report = rules.to_flax(rules.pick(names.TABLES["vae"], old), old, drawn["vae"])
    assert not report.missing
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, drawn["vae"]))


def test_networks_of_another_kind_say_so():
    config = {"_class_name": names.CLASSES["unet"], "norm_num_groups": 32}
    config["attention_head_dim"] = [5, 10, 20, 20]
    with pytest.raises(rules.ConversionError, match="heads of another number at each level"):
        names.from_config("unet", config)
    with pytest.raises(pretrained.WeightsError, match="--local-dir DIR"):
        pretrained.load("stable-diffusion-v1-5/stable-diffusion-v1-5", "diffusion", "unet")


def shape_of(module, *args, **kw):
    return jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), *args, **kw))[0]


def test_any_size_goes_through_and_what_does_not_fit_says_so():
    x, t, text = jnp.zeros((2, 5, 7, 4)), jnp.zeros(2), jnp.zeros((2, 3, 12))
    held = shape_of(SMALL["control"], x, t, text, jnp.zeros((2, 20, 28, 4)))
    half = shape_of(SMALL["unet"].clone(dtype=jnp.bfloat16), x, t, text)
    assert (half.shape, half.dtype) == (x.shape, jnp.float32)
    assert len(held[0]) == 12
    assert held[1].shape == (2, 1, 1, 16)
    pixels = ControlNet(**SIZES, groups=8, strided=False)
    assert pixels.factor == 1
    with pytest.raises(ValueError, match="text tokens have 3 numbers each"):
        shape_of(SMALL["unet"], x, t, text[..., :3])
    with pytest.raises(ValueError, match=r"a latent of 5 x 7 needs \[20, 28, 4\]"):
        shape_of(SMALL["control"], x, t, text, jnp.zeros((2, 20, 20, 4)))
    with pytest.raises(ValueError, match="12 channels cannot be split into heads=8"):
        shape_of(UNet(channels=(12,), attention=(True,), groups=4, context=12), x, t, text)


def test_tiles_cover_a_picture_and_fade_into_each_other(drawn):
    vae = SMALL["vae"].clone(tile=4)
    latent = np.random.RandomState(1).standard_normal((1, 9, 6, 4)).astype(np.float32)

    def doubled(vae):
        return vae._tiled(lambda _, x: x.repeat(2, 1).repeat(2, 2), latent, 1, 2)

    # Of what reads no neighbours, tiles change nothing.
    made = vae.apply(drawn["vae"], method=doubled)
    np.testing.assert_allclose(made, latent.repeat(2, 1).repeat(2, 2), atol=1e-6)
    picture = jax.eval_shape(lambda: vae.apply(drawn["vae"], latent, method="decode"))
    assert picture.shape == (1, 72, 48, 3)
    with pytest.raises(ValueError, match="multiples of 8"):
        vae.apply(drawn["vae"], jnp.zeros((1, 60, 64, 3)), method="encode")
