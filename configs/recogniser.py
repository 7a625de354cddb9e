"""A recogniser of the procedural corpora: python -m jaxt2i.train --config configs/recogniser.py."""

from ml_collections import ConfigDict

from configs import common


def get_config(preset: str | None = None) -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(PRESETS, preset)


def embedded() -> ConfigDict:
    """Scenes, 32 px."""
    c = common.base()
    c.method = "jaxt2i.methods.recogniser"
    c.batch_size = 64
    c.total_steps = 800
    c.log_every_steps = 50
    c.checkpoint_every_steps = 400
    c.sample_every_steps = 200
    c.score_images = 512
    c.data.update(source="synthetic", corpus="scenes", split="judge", resolution=32)
    c.optim = ConfigDict(
        {
            "lr": 4e-3,
            "b1": 0.9,
            "b2": 0.98,
            "eps": 1e-6,
            "weight_decay": 0.02,
            "warmup_steps": 50,
            "decay_steps": 800,
        }
    )
    c.model = ConfigDict(
        {
            "classes": 17,
            "values": (12, 3, 6, 12, 12, 12, 12, 2),
            "places": 9,
            "width": 96,
            "grid": 8,
            "depth": 3,
            "objects": 8,
            "least": 0.4,
            "noise": 0.0,
        }
    )
    return c


def tiny() -> ConfigDict:
    """Compiles in seconds: for smoke tests."""
    c = embedded()
    c.batch_size = 16
    c.total_steps = 8
    c.log_every_steps = 1
    c.checkpoint_every_steps = 4
    c.sample_every_steps = 4
    c.score_images = 200
    c.data.resolution = 16
    c.model.update(width=16, grid=4, depth=1)
    c.optim.update(warmup_steps=0, decay_steps=0)
    c.promise.update(steps=300, margin=ConfigDict({"class": 0.05}))
    return c


PRESETS = {f.__name__: f for f in (embedded, tiny)}
