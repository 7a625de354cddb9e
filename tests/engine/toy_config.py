"""The toy game on the embedded data, for tests that start real processes."""

from ml_collections import ConfigDict

from jaxt2i.configs import common


def get_config():
    c = common.base()
    c.method = "tests.engine.toy"
    c.batch_size = 16
    c.total_steps = 20
    c.log_every_steps = 1
    c.checkpoint_every_steps = 5
    c.sample_every_steps = 0
    c.score_images = 0
    c.sharding = ((".", "fsdp"),)
    c.mesh.fsdp_min_mb = 0.0
    c.data.resolution = 16
    c.model = ConfigDict({"fails_at": -1, "width": 8})
    c.optim = ConfigDict({"lr": 0.05, "adam": False})
    return c
