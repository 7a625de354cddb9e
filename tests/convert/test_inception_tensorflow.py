"""Inception-v3 of TF-slim and of Keras: what TensorFlow computes, from the files that it writes."""

import gc

import h5py
import jax
import numpy as np
import pytest

from jaxt2i.convert import __main__ as convert
from jaxt2i.convert import files, rules, tensorflow_files
from jaxt2i.convert.rules import ConversionError
from jaxt2i.convert.torch_files import UnreadableFileError
from jaxt2i.encoders import features, pretrained
from jaxt2i.encoders import inception_names as names
from jaxt2i.encoders.inception import PRESETS, InceptionFeatures

pytestmark = pytest.mark.xdist_group("inception_tensorflow")

# The smallest size at which every pool has both borders and an inside.
SIZE, CLASSES = 107, 51
MODULE = InceptionFeatures(**PRESETS["slim_cub"])
PICTURES = np.random.RandomState(0).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def read():
    yield jax.jit(MODULE.apply)
    jax.clear_caches()
    gc.collect()


def agree(found, wanted, rtol=1e-5):
    peak = np.abs(wanted).max()
    assert peak > 0.1
    np.testing.assert_allclose(found, wanted, rtol=0, atol=rtol * peak)


# --- TF-slim -----------------------------------------------------------------------------------


class Slim:
    """The network of 2016 in TensorFlow's own operations, its variables named by its scopes."""

    def __init__(self, tf):
        self.tf, self.seed = tf, 0

    def variable(self, name, shape, spread, centre=0.0):
        self.seed += 1
        draw = self.tf.compat.v1.random_uniform_initializer
        between = draw(centre - spread, centre + spread, seed=self.seed)
        return self.tf.compat.v1.get_variable(name, shape, initializer=between)

    def scope(self, name, default=None):
        return self.tf.compat.v1.variable_scope(name, default)

    def conv(self, x, n, size, stride=1, padding="SAME", scope=None):
        size = (size, size) if isinstance(size, int) else size
        with self.scope(scope, "Conv"):
            shape = (*size, x.shape[-1], n)
            w = self.variable("weights", shape, (6 / np.prod(shape[:3])) ** 0.5)
            x = self.tf.nn.conv2d(x, w, stride, padding)
            with self.scope(None, "BatchNorm"):
                beta, mean = (self.variable(name, (n,), 0.3) for name in NORM[:2])
                var = self.variable(NORM[2], (n,), 0.5, 1.0)
            x = self.tf.nn.batch_normalization(x, mean, var, beta, None, 0.001)
        return self.tf.nn.relu(x)

    def chain(self, x, scope, *units):
        with self.scope(scope):
            for unit in units:
                x = self.conv(x, *unit)
        return x

    def pooled(self, x, n):
        return self.chain(self.tf.nn.avg_pool2d(x, 3, 1, "SAME"), "branch_pool", (n, 1))

    def shrunk(self, x):
        return self.tf.nn.max_pool2d(x, 3, 2, "VALID")

    def a(self, x, n):
        return (
            self.chain(x, "branch1x1", (64, 1)),
            self.chain(x, "branch5x5", (48, 1), (64, 5)),
            self.chain(x, "branch3x3dbl", (64, 1), (96, 3), (96, 3)),
            self.pooled(x, n),
        )

    def b(self, x):
        last = (96, 3, 2, "VALID")
        return (
            self.chain(x, "branch3x3", (384, 3, 2, "VALID")),
            self.chain(x, "branch3x3dbl", (64, 1), (96, 3), last),
            self.shrunk(x),
        )

    def c(self, x, n):
        row, col = (1, 7), (7, 1)
        double = (n, 1), (n, col), (n, row), (n, col), (192, row)
        return (
            self.chain(x, "branch1x1", (192, 1)),
            self.chain(x, "branch7x7", (n, 1), (n, row), (192, col)),
            self.chain(x, "branch7x7dbl", *double),
            self.pooled(x, 192),
        )

    def d(self, x):
        units = (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, "VALID")
        return (
            self.chain(x, "branch3x3", (192, 1), (320, 3, 2, "VALID")),
            self.chain(x, "branch7x7x3", *units),
            self.shrunk(x),
        )

    def fork(self, x, scope, *units):
        with self.scope(scope):
            for unit in units:
                x = self.conv(x, *unit)
            return self.tf.concat([self.conv(x, 384, size) for size in ((1, 3), (3, 1))], 3)

    def e(self, x):
        return (
            self.chain(x, "branch1x1", (320, 1)),
            self.fork(x, "branch3x3", (384, 1)),
            self.fork(x, "branch3x3dbl", (448, 1), (384, 3)),
            self.pooled(x, 192),
        )

    def __call__(self, x):
        for i, (n, size, stride, padding) in enumerate(STEM):
            x = self.conv(x, n, size, stride, padding, f"conv{i}")
            x = self.shrunk(x) if i in (2, 4) else x
        for name, block, *given in BLOCKS:
            with self.scope(f"mixed_{name}"):
                x = self.tf.concat(getattr(self, block)(x, *given), 3)
        pool = self.tf.reduce_mean(x, (1, 2))
        with self.scope("logits/logits"):
            w, b = (
                self.variable("weights", (2048, CLASSES), 0.1),
                self.variable("biases", CLASSES, 1),
            )
        return pool, pool @ w + b


NORM = "beta", "moving_mean", "moving_variance"
STEM = (
    *((32, 3, 2, "VALID"), (32, 3, 1, "VALID"), (64, 3, 1, "SAME")),
    *((80, 1, 1, "VALID"), (192, 3, 1, "VALID")),
)
BLOCKS = (
    *(("35x35x256a", "a", 32), ("35x35x288a", "a", 64), ("35x35x288b", "a", 64)),
    *(("17x17x768a", "b"), ("17x17x768b", "c", 128), ("17x17x768c", "c", 160)),
    *(("17x17x768d", "c", 160), ("17x17x768e", "c", 192), ("17x17x1280a", "d")),
    *(("8x8x2048a", "e"), ("8x8x2048b", "e")),
)


@pytest.fixture(scope="module")
def slim(tmp_path_factory):
    """(the checkpoint, as StackGAN's was written; pool3 and logits by its averages)."""
    tf = pytest.importorskip("tensorflow")
    prefix = tmp_path_factory.mktemp("birds_valid299") / "model.ckpt"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        out = Slim(tf)(tf.constant(PICTURES))
        learned = tf.compat.v1.trainable_variables()
        assert sum(v.shape.num_elements() for v in learned) == 21_907_283
        averages = tf.compat.v1.train.ExponentialMovingAverage(0.9999).variables_to_restore(learned)
        # What else lies in such a file: the last step's values, the optimiser's, another head.
        shapes = {"conv0/weights": (3, 3, 3, 32), "conv0/BatchNorm/moving_mean": (32,)}
        shapes |= {"conv0/weights/RMSProp": (3, 3, 3, 32), "aux_logits/FC/biases": (CLASSES,)}
        with tf.compat.v1.variable_scope("others"):
            others = {k: tf.compat.v1.get_variable(k, shape) for k, shape in shapes.items()}
            others["global_step"] = tf.compat.v1.get_variable("step", initializer=np.int64(5000))
        session.run(tf.compat.v1.global_variables_initializer())
        wanted = session.run(out)
        saver = tf.compat.v1.train.Saver(averages | others, write_version=1)
        saver.save(session, str(prefix), write_meta_graph=False)
    yield prefix, wanted
    prefix.unlink()


def test_the_published_kind_of_checkpoint_gives_what_tensorflow_gives(slim, read, tmp_path, capsys):
    prefix, (pool, logits) = slim
    assert prefix.is_file()  # one file, as TensorFlow wrote them in 2016
    assert convert.main(["inception", "--from", str(prefix), "--to", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "unused: 0\nmissing: 0" in printed
    assert "'classes': 51" in printed
    network = features.load("inception_slim_cub", str(tmp_path))
    assert network.nets["features"].module == MODULE
    found = read(network.variables["features"], PICTURES)
    agree(found["2048"], pool)
    agree(found["logits"], logits)
    # 20 classes of flowers are not 50 of birds.
    with pytest.raises(ConversionError, match=r"fc/kernel has shape \(2048, 51\).*\(2048, 21\)"):
        features.load("inception_slim_oxford102", str(tmp_path))


@pytest.fixture(scope="module")
def state():
    """Arrays of a checkpoint by name, without their memory."""
    shapes = pretrained.template(MODULE)
    empty = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)
    table = names.slim(names.AVERAGED)
    found = rules.to_torch(table, empty)
    return {k.replace("/Conv_0/", "/Conv/"): x for k, x in found.items()}, shapes


def test_a_branch_may_count_its_convolutions_from_any_number(state):
    given, shapes = state
    later = {}
    for name, x in given.items():
        branch, found, rest = name.partition("/Conv")
        number, _, leaf = rest.partition("/")
        later[f"{branch}/Conv_{int(number[1:] or 0) + 7}/{leaf}" if found else name] = x
    assert "mixed_8x8x2048b/branch3x3/Conv_9/weights/ExponentialMovingAverage" in later
    for file in (given, later):
        _, report = rules.to_flax(rules.pick(names.TABLES["features"], file), file, shapes)
        assert not report.missing
        assert not report.unused


def test_a_checkpoint_without_averages_is_one_of_them(state):
    given, shapes = state
    plain = {name.removesuffix(names.AVERAGED): x for name, x in given.items()}
    averaged = rules.pick(names.TABLES["features"], plain | given)
    strange = {"mixed_9/Conv/weights": np.zeros(1)}
    _, report = rules.to_flax(averaged, plain | given | strange, shapes)
    assert report.used == list(given)
    assert report.ignored == list(plain)
    assert report.unused == list(strange)
    _, report = rules.to_flax(rules.pick(names.TABLES["features"], plain), plain, shapes)
    assert not report.missing
    assert names.infer("features", plain) == PRESETS["slim_cub"]


def test_what_is_missing_or_of_another_shape_is_named(state):
    given, shapes = state
    name = f"mixed_17x17x768c/branch7x7dbl/Conv_3/BatchNorm/beta{names.AVERAGED}"
    less = {k: x for k, x in given.items() if k != name}
    _, report = rules.to_flax(rules.pick(names.TABLES["features"], less), less, shapes)
    assert report.missing == ["params/trunk/Mixed_6c/branch7x7dbl_4/bias"]
    other = given | {name: np.zeros(161, np.float32)}
    with pytest.raises(ConversionError, match=r"Conv_3/BatchNorm/beta.*\[161\] for .*\[160\]"):
        rules.to_flax(rules.pick(names.TABLES["features"], other), other, shapes)


# --- Keras -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_file_gives_what_keras_gives(read, tmp_path):
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    # What wrote the published file; Keras has no public way to this format any more.
    legacy_h5_format = pytest.importorskip("keras.src.legacy.saving.legacy_h5_format")
    rng, file = np.random.RandomState(2), tmp_path / "inception_v3.h5"
    model = keras.applications.InceptionV3(
        weights=None, classes=CLASSES, input_shape=(SIZE, SIZE, 3), classifier_activation=None
    )
    assert model.count_params() == sum(x.size for x in jax.tree.leaves(pretrained.template(MODULE)))
    for v in model.weights:
        if len(v.shape) == 1:
            low, high = (0.5, 1.5) if v.name == "moving_variance" else (-0.3, 0.3)
            v.assign(rng.uniform(low, high, v.shape))
    with h5py.File(file, "w") as opened:
        legacy_h5_format.save_weights_to_hdf5_group(opened, model)
    variables = pretrained.load(str(file), "inception", "features")
    agree(read(variables, PICTURES)["logits"], np.asarray(model(PICTURES)))


def test_keras_layers_count_from_any_number():
    shapes = pretrained.template(InceptionFeatures(**PRESETS["keras"]))
    empty = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)
    file = {}
    for name, x in rules.to_torch(names.keras(), empty).items():
        # conv2d from 1, as in the file of 2017; the first norm without a number.
        layer, leaf = name.split("/")
        if layer.startswith("conv2d_"):
            layer = f"conv2d_{int(layer.removeprefix('conv2d_')) + 1}"
        file[f"{layer}/{leaf}".replace("normalization_0/", "normalization/")] = x
    assert {"conv2d_94/kernel", "batch_normalization/beta", "predictions/bias"} <= set(file)
    _, report = rules.to_flax(rules.pick(names.TABLES["features"], file), file, shapes)
    assert not report.missing
    assert not report.unused


# --- Files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_a_checkpoint_is_found_by_any_of_its_files(version, tmp_path):
    tf = pytest.importorskip("tensorflow")
    prefix = tmp_path / "model.ckpt-5000"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("a/b", initializer=np.float32([[1, 2], [3, 4]]))
        tf.compat.v1.get_variable("said", initializer="words")
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(write_version=version).save(session, str(prefix))
    parts = [f for f in tmp_path.iterdir() if f.name.startswith(prefix.name)]
    assert len(parts) == version + 1
    head = tensorflow_files.table_of(prefix)
    assert head.name == (prefix.name if version == 1 else f"{prefix.name}.index")
    for part in parts:
        assert files.find(part) == head
    found = files.read(prefix)
    assert list(found) == ["a/b"]
    np.testing.assert_array_equal(found["a/b"], [[1, 2], [3, 4]])
    if version == 2:
        next(tmp_path.glob("*.data-*")).unlink()
        with pytest.raises(
            UnreadableFileError, match=r"model\.ckpt-5000\.index: its arrays cannot"
        ):
            files.read(prefix)


def test_files_of_neither_kind(tmp_path):
    assert files.find(tmp_path / "model.ckpt") is None
    (tmp_path / "model.ckpt").write_bytes(b"web page")
    assert files.find(tmp_path / "model.ckpt") == tmp_path / "model.ckpt"
    with pytest.raises(UnreadableFileError, match=r"model\.ckpt: neither"):
        files.read(tmp_path / "model.ckpt")
    (tmp_path / "a.h5").write_bytes(b"web page")
    with pytest.raises(UnreadableFileError, match=r"a\.h5: not a readable \.h5"):
        files.read(tmp_path / "a.h5")
