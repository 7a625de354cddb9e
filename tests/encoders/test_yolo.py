"""Darknet's files, and detections of any picture."""

import hashlib
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxt2i.convert import __main__ as convert
from jaxt2i.convert import darknet_files
from jaxt2i.convert.unpickle import UnreadableFileError
from jaxt2i.encoders import features, pretrained, yolo, yolo_names
from jaxt2i.evaluation import detection
from jaxt2i.evaluation.reading import Reader
from jaxt2i.verify.arrays import nhwc
from jaxt2i.verify.golden import Golden, compare, subsample
from tests.verify.test_goldens import GOLDENS

GOLDEN = Golden(GOLDENS / "yolov3")
NOTES = GOLDEN.manifest["notes"]["weights_file"]


def written(file, header=NOTES["header_int32"], tensors=None, kind="<i4"):
    """The golden weights as darknet writes them."""
    tensors = tensors or GOLDEN.weights("darknet")
    parts = [np.asarray(header, kind)] + [tensors[k].astype("<f4") for k in NOTES["order"]]
    file.write_bytes(b"".join(part.tobytes() for part in parts))
    return file


@pytest.fixture(scope="module")
def thin(tmp_path_factory):
    return written(tmp_path_factory.mktemp("darknet") / "thin.weights")


def test_a_file_is_read_as_the_official_reader_reads_it(thin):
    data = thin.read_bytes()
    assert len(data) == NOTES["n_bytes"]
    assert hashlib.sha256(data).hexdigest() == NOTES["sha256"]
    found = yolo_names.read_all(thin).tensors
    assert list(found) == NOTES["order"]
    for name, value in GOLDEN.weights("darknet").items():
        if name in found:
            np.testing.assert_array_equal(found[name], value)
    assert yolo_names.infer("detector", found) == {"classes": 80, "thin": 16}


def test_older_headers_are_shorter(tmp_path, thin):
    old = written(tmp_path / "old.weights", [0, 1, 0, 32013312])
    assert old.stat().st_size == thin.stat().st_size - 4
    old, new = (yolo_names.read_all(x).tensors for x in (old, thin))
    assert all(np.array_equal(old[name], new[name]) for name in new)


def test_the_published_file_has_its_size_and_every_tensor_its_place():
    layers = yolo_names.layers()
    assert 20 + 4 * darknet_files.numbers(layers) == 248_007_048
    # Zeros in place of the numbers, without their memory.
    file = {k: np.broadcast_to(np.int8(0), shape) for k, shape in darknet_files.tensors(layers)}
    full = json.loads((GOLDENS / "yolov3" / "full_tensors.json").read_text())
    known = {k: tuple(shape) for k, shape in full if "num_batches" not in k}
    assert known == dict(darknet_files.tensors(layers))
    made, report = convert.rules.to_flax(yolo_names.DETECTOR, file, None)
    wanted = pretrained.template(yolo.YoloV3())
    assert jax.tree.map(np.shape, made) == jax.tree.map(np.shape, wanted)
    assert not report.unused
    pretrained.fitting(made, wanted, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x[:-400], r"1,103,388 bytes of weights, where YOLOv3 of 80 classes has 248,007"),
        (lambda x: x + x[-400:], "cut off, or is another network's"),
        (lambda x: b"<html>no such page</html>", "a web page"),
        (lambda x: b"", "empty"),
        (lambda x: b"\x07" * 60, r"begins with the version 117901063.117901063 and has 60 bytes"),
    ],
)
def test_other_files_are_refused_in_a_sentence(tmp_path, thin, change, said):
    file = tmp_path / "x.weights"
    file.write_bytes(change(thin.read_bytes()))
    with pytest.raises(UnreadableFileError, match=said):
        yolo_names.read_all(file)


def test_a_trunk_and_a_larger_network_are_told_apart():
    layers = {"YOLOv3 of 80 classes": yolo_names.layers()}
    trunk = 4 * darknet_files.numbers(yolo_names.layers()[:52])
    assert trunk == 162_482_580 - 20  # darknet53.conv.74
    assert "ends after 52 of 75 convolutions" in darknet_files.misfit(trunk, layers)
    larger = 4 * darknet_files.numbers(yolo_names.layers()) + 4
    assert darknet_files.misfit(larger, layers).endswith("it is another network's")


def test_a_file_is_converted_and_loaded_by_name(tmp_path, thin, monkeypatch):
    assert convert.main(["yolo", "--from", str(thin), "--to", str(tmp_path / "made")]) == 0
    net = features.make("yolov3")["detector"]._replace(module=yolo.YoloV3(thin=16))
    monkeypatch.setitem(features.NETWORKS, "yolov3", lambda: {"detector": net})
    a, b = (features.load("yolov3", str(x)).variables for x in (thin, tmp_path / "made"))
    assert jax.tree.all(jax.tree.map(np.array_equal, a, b))


class Simple(nn.Module):
    """Two boxes a picture: one over its left half, whose class is its red, one that is nothing."""

    def __call__(self, x):
        red = jnp.round(10 * x[..., 0].mean((1, 2))).astype(int)
        left = jnp.concatenate([jnp.array([64.0, 128, 128, 256, 0.75]), jnp.zeros(80)])
        rows = jnp.broadcast_to(left, (len(x), 85)) + 0.5 * jax.nn.one_hot(5 + red, 85)
        return jnp.stack([rows, jnp.zeros((len(x), 85))], 1)


def test_detections_are_fractions_of_any_picture():
    net = features.Net(Simple(), (), yolo.INPUTS)
    network, reader = features.Network("yolov3", {"detector": net}, {"detector": {}}), Reader()
    reader.hold(network)
    found = detection.yolo(network, 8, reader.verified)
    pictures = np.zeros((11, 40, 60, 3), np.uint8)
    pictures[..., 0] = 25.5 * np.arange(11)[:, None, None]
    seen = found.detect(pictures)
    assert seen == [[(n, (0.0, 0.0, 0.5, 1.0), 0.375)] for n in range(11)]
    assert found.classes[seen[2][0].label] == "car"
    assert found.classes[found.number("airplane")] == "aeroplane"
    assert found.number("zeppelin") is None
    assert reader.told("yolov3")["yolov3"]["self_check"] == "rows of a batch agree to 0e+00"


def test_pictures_are_resized_as_pillow_does():
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    want = np.asarray(Image.fromarray(picture).resize((256, 256), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(yolo.pixels(picture[None])[0], want / 255, atol=1e-6)


def test_boxes_of_no_sense_end_the_merging():
    rows = np.full((3, 7), np.inf, np.float32)
    rows[:, 4:] = [[0.9, 0.9, 1], [0.8, 0.9, 1], [0.4, 0.9, 1]]
    assert len(yolo.suppress(rows)) == 2


@pytest.mark.full
def test_a_file_of_the_published_size_predicts_what_the_official_code_does(tmp_path):
    file = written(tmp_path / "yolov3.weights", tensors=GOLDEN.weights("darknet_full"))
    assert file.stat().st_size == 248_007_048
    network, case = features.load("yolov3", str(file)), GOLDEN.case("full_forward64")
    found = jax.jit(network.reader("detector"))(
        network.variables["detector"], nhwc(case.inputs["in_image"])
    )
    want = case.outputs["out_pred"]
    result = compare(want, subsample(found, want.shape), case.tolerance["out_pred"])
    assert result.passed, result
