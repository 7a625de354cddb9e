import huggingface_hub
import jax
import numpy as np
import pytest
from PIL import Image

from jaxt2i.encoders import clip, features, pretrained
from jaxt2i.encoders.pretrained import WeightsError

RANDOM = np.random.RandomState(0)


@pytest.mark.parametrize("name", features.NETWORKS)
def test_every_network_has_known_sources_and_networks(name):
    for net in features.make(name).values():
        for part in net.parts:
            known = pretrained.ADDRESSES | pretrained.KNOWN | pretrained.BY_HAND
            kinds = known[part.source][0]
            assert part.kind in ((kinds,) if isinstance(kinds, str) else kinds)
            assert part.net in pretrained.NAMES[part.kind].TABLES
        shapes = pretrained.template(net.module)
        assert all(part.under in ("", *shapes["params"]) for part in net.parts)


@pytest.fixture(scope="module")
def network():
    return features.load("lpips_alex", weights="random")


def test_a_reader_is_a_function_of_weights_and_images(network):
    a, b = RANDOM.uniform(-1, 1, (2, 1, 48, 48, 3)).astype(np.float32)
    read, layers = network.reader("distance"), network.reader("distance", method="layers")
    both = jax.jit(lambda *given: (read(*given), layers(*given)))
    distance, parts = both(network.variables["distance"], a, b)
    assert distance.shape == (1,)
    assert distance > 0
    np.testing.assert_allclose(parts.sum(-1), distance, rtol=1e-5)
    with pytest.raises(ValueError, match="lpips_alex knows no input 'tf1'; choose from none"):
        network.reader("distance", "tf1")


def test_products_are_exact(network):
    x = np.zeros((1, 48, 48, 3), np.float32)
    text = str(jax.make_jaxpr(network.reader("distance"))(network.variables["distance"], x, x))
    assert "precision=None" not in text
    assert "HIGHEST" in text


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'inception_2015'"):
        features.load("inception2015")
    with pytest.raises(ValueError, match="weights='none'; known: pretrained, random"):
        features.load("lpips_vgg", weights="none")
    with pytest.raises(ValueError, match="names 3 files, give 1 or 2"):
        features.load("lpips_vgg", "a,b,c")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("inception_2015", "torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05"),
        ("inception_torchvision", "inception_v3_google-0cc3c7bd.pth"),
        ("lpips_alex", "alexnet-owt-7be5be79.pth"),
        ("vgg16_fc2", "vgg16-397923af.pth"),
        ("dinov2_l14", "https://huggingface.co/facebook/dinov2-large"),
        ("open_clip_vit_g14_laion2b_s12b_b42k", "laion/CLIP-ViT-g-14-laion2B-s12B-b42K"),
    ],
)
def test_offline_says_which_file_from_where_and_how_to_name_it(name, said, monkeypatch, tmp_path):
    def refuses(*_):
        raise ConnectionError("no route")

    monkeypatch.setenv("JAXT2I_CACHE", str(tmp_path))
    monkeypatch.setattr("pooch.HTTPDownloader.__call__", refuses)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuses)
    with pytest.raises(WeightsError) as caught:
        features.load(name, nets=("features", "distance", "image"))
    message = str(caught.value)
    assert said in message
    assert "no route" in message
    assert f"--weights {name}=FILE" in message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("inception_slim_cub", "StackGAN-inception-model.*name birds_valid299/model.ckpt"),
        ("inception_slim_oxford102", "drive.google.com.*name flowers_valid299/model.ckpt"),
        ("vgg16_nvidia", r"metrics/vgg16.pt .*torch.jit.load\('vgg16.pt'\)"),
    ],
)
def test_what_no_program_can_fetch_says_how_a_person_does(name, said):
    with pytest.raises(WeightsError, match=rf"(?s){said}.*--weights {name}=FILE"):
        features.load(name)


def test_a_hash_may_be_known_by_its_first_digits(tmp_path):
    source = tmp_path / "w.pth"
    source.write_bytes(b"abc")
    pretrained.check(source, "900150983cd24fb0d6963f7d28e17f72")  # md5
    with pytest.raises(WeightsError, match="md5 is 900150983cd24fb0d6963f7d28e17f72, expected 0"):
        pretrained.check(source, 32 * "0")
    digest = pretrained.sha256(source)[:8]
    pretrained.check(source, digest)
    source.write_bytes(b"abd")
    with pytest.raises(WeightsError, match=f"expected {digest}"):
        pretrained.check(source, digest)


def test_a_folder_that_was_converted_for_another_size_is_refused(tmp_path):
    made = pretrained.template(features.make("dinov2_s14")["features"].module)
    (tmp_path / "convert.json").write_text("{}")
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.int8), made)
    pretrained.save_variables(tmp_path / "features.safetensors", zeros)
    assert features.load("dinov2_s14_hub", str(tmp_path)).variables
    with pytest.raises(ValueError, match=r"embed/class_token has shape \(384,\).*\(768,\)"):
        features.load("dinov2_b14", str(tmp_path))


@pytest.mark.parametrize("shape", [(60, 47), (33, 80), (64, 64)])
def test_clip_is_shown_what_pillow_makes(shape):
    x = RANDOM.randint(0, 256, (*shape, 3)).astype(np.uint8)
    picture, (h, w) = Image.fromarray(x), shape
    scale = 32 / min(h, w)
    big = picture.resize((int(w * scale), int(h * scale)), Image.Resampling.BICUBIC)
    left, top = round((big.width - 32) / 2), round((big.height - 32) / 2)
    want = np.asarray(big.crop((left, top, left + 32, top + 32))) / 255
    got = clip.INPUTS["pillow_bicubic_crop"](x[None], 32)[0]
    np.testing.assert_allclose(got, want, atol=1e-6)
    left, top, short = (w - min(h, w)) // 2, (h - min(h, w)) // 2, min(h, w)
    square = picture.crop((left, top, left + short, top + short))
    want = np.asarray(square.resize((32, 32), Image.Resampling.BICUBIC)) / 255
    got = clip.INPUTS["pillow_crop_bicubic"](x[None], 32)[0]
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_galips_range_is_squeezed_twice():
    x = np.uint8([0, 255]).reshape(1, 1, 2, 1).repeat(3, -1)
    got = clip.INPUTS["galip"](x, 4)
    np.testing.assert_allclose(got[0, 0, :, 0], [0.5, 0.5, 1, 1], atol=1e-6)


def test_each_clip_has_its_own_mean_and_deviation():
    grey = np.full((1, 8, 8, 3), 127.5, np.float32)
    half = features.make("open_clip_vit_l14_laion2b_s32b_b82k")["image"].inputs["torch_bicubic"]
    usual = features.make("openai_vit_b32")["image"].inputs["torch_bicubic"]
    np.testing.assert_allclose(half(grey), 0, atol=1e-6)
    want = (0.5 - np.float32(clip.MEAN)) / np.float32(clip.STD)
    np.testing.assert_allclose(usual(grey)[0, 0, 0], want, atol=1e-5)
