"""A feature network that compiles in a second, and a protocol that measures with it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxt2i import recognise
from jaxt2i.data.drawn import meaning
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.encoders import clip, dino, features
from jaxt2i.engine import state as states
from jaxt2i.evaluation.detection import Detection, Detector
from jaxt2i.metrics import protocols
from jaxt2i.run import checkpoint, settings
from jaxt2i.run import open as runs


class Eye(nn.Module):
    """Pictures to three vectors, as Inception gives them."""

    def example(self):
        return (jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32),)

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(16, (3, 3), (2, 2))(x))
        x = nn.relu(nn.Conv(12, (3, 3), (2, 2))(x)).mean((1, 2))
        logits = nn.Dense(5, use_bias=False)(x)
        return {"2048": x, "logits": logits + 1, "logits_unbiased": logits}


def plain(pixels):
    """Pictures to [-1, 1]."""
    return pixels / jnp.float32(127.5) - 1


def tiny_network():
    """The network, with one way to be fed."""
    return {"features": features.Net(Eye(), (), {"plain": plain})}


def use(monkeypatch):
    """Makes the network and the protocol known for a test."""
    name = "inception_small"
    monkeypatch.setitem(features.NETWORKS, name, tiny_network)
    samples = protocols.Samples("blooms", "val", 16, 64, "distinct")
    small = protocols.Protocol(
        "small",
        samples,
        fid=protocols.Fid(name, "plain"),
        inception=protocols.Inception(name, "plain", splits=4),
        kid=protocols.Kid(name, "plain", subsets=10, size=20),
        balls=protocols.Balls(name, "plain"),
    )
    monkeypatch.setitem(protocols.PROTOCOLS, "small", small)
    return small


def recogniser(monkeypatch):
    """In the place of the procedural corpora's: what it sees follows from pixels, and means little.

    It finds about half of all classes in a picture, always in one place; its features are the
    mean colours of quarters.
    """
    classes = Synthetic("blooms", 16).class_names

    def detect(images):
        sums = images.sum((1, 2, 3), dtype=np.int64).tolist()
        own = range(len(classes))
        return [
            [Detection(n, (0.25, 0.25, 0.5, 0.5), 0.9) for n in own if (total >> n % 7) & 1]
            for total in sums
        ]

    def named(text):
        return [classes.index(t.name) for t in meaning.read(text, "blooms").things if t.name]

    def read(eye, images):
        half = images.shape[1] // 2
        quarters = images.reshape(len(images), 2, half, 2, half, 3).mean((2, 4), dtype=np.float64)
        return {"features": quarters.reshape(len(images), -1)}

    by = Detector("by pixels", classes, detect, named, rarest=tuple(range(len(classes))))
    monkeypatch.setattr(recognise, "detector", lambda corpus, **kw: by)
    monkeypatch.setattr(recognise, "eye", lambda corpus, **kw: corpus)
    monkeypatch.setattr(recognise, "readings", read)


class Row(Eye):
    """Pictures to one vector."""

    def __call__(self, x):
        return super().__call__(x)["2048"]


STAND_INS = ("inception_2015", "vgg16_fc2", "openai_vit_b32", "openai_vit_l14_336", "dinov2_l14")


def stand_ins(monkeypatch):
    """Networks of published names that compile in seconds, fed as the published ones are."""
    for name, module in (("inception_2015", Eye()), ("vgg16_fc2", Row())):
        inputs = features.make(name)["features"].inputs
        net = {"features": features.Net(module, (), inputs)}
        monkeypatch.setitem(features.NETWORKS, name, lambda net=net: net)
    for preset in ("vit_b32", "vit_l14_336"):
        size = clip.PRESETS[preset]._replace(joint=8, text_width=16, text_layers=1, text_heads=1)
        size = size._replace(width=16, layers=1, heads=1, patch=size.resolution // 2)
        monkeypatch.setitem(clip.PRESETS, preset, size)
    little = {"width": 16, "layers": 1, "heads": 1, "taps": (0,)}
    monkeypatch.setitem(dino.PRESETS, "dinov2_l14", dino.DINOV2 | little)


RANDOM = tuple(f"{name}=random" for name in STAND_INS)
WEIGHTS = ("--weights", "inception_small=random")


def pictures(folder, count=48, start=0, size=16, captions=True):
    """A folder of procedural pictures."""
    folder.mkdir(parents=True)
    source = Synthetic("blooms", size)
    for i in range(count):
        file = folder / f"{i:03d}.png"
        Image.fromarray(np.asarray(source.example(start + i)["image"])).save(file)
        if captions:
            file.with_suffix(".txt").write_text(source.captions(start + i)[0] + "\n")
    return folder


# Compiles soonest, where nothing depends on the system.
TOY = "tests/engine/toy_config.py"


def untrained(folder, file="configs/df_gan.py", steps=(2, 4), init_from="", **model):
    """A run of the tiny preset as training would leave it, but for its weights: they are random.

    Only the initialisation is compiled, not a training step.
    """
    config = settings.preset(file, "" if file == TOY else "tiny")
    config.total_steps = steps[-1]
    config.init_from = init_from
    config.model.update(model)
    return kept(folder, config, steps)


def kept(folder, config, steps=(1,)):
    """The same of a configuration that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    settings.write_config(folder, config, "a test")
    run = runs.open_run(config)
    spec, device = run.batch_spec(), jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shardings = jax.tree.map(lambda _: device, states.shapes(run.method, spec))
    state, _ = states.create(run.method, spec, config.seed, shardings)
    keeper = checkpoint.Checkpoints(folder)
    for step in steps:
        keeper.save(state.replace(step=jnp.int32(step)), {"config": settings.plain(config)}, step)
    keeper.close()
    return folder
