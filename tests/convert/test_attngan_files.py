"""Published files of AttnGAN and DM-GAN, one network each: told apart, measured, and read whole."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxt2i.convert import rules
from jaxt2i.convert.__main__ import main
from jaxt2i.encoders import pretrained
from jaxt2i.nn.critics import Critic
from jaxt2i.systems.attngan import method as attngan_method
from jaxt2i.systems.attngan import names as attngan
from jaxt2i.systems.dm_gan import method as dm_gan_method
from jaxt2i.systems.dm_gan import names as dm_gan

SIZES = {"z_dim": 5, "c_dim": 3, "words_dim": 6}
FILES = [
    (attngan, "g", attngan_method.Generator(base=4, residuals=3, **SIZES)),
    (attngan, "g", attngan_method.Generator(base=4, residuals=0, last_only=True, **SIZES)),
    (dm_gan, "g", dm_gan_method.Generator(base=4, residuals=1, **SIZES)),
    *((attngan, f"d{r}", Critic(base=4, resolution=r, sentence_dim=6)) for r in (64, 128, 256)),
    *(
        (dm_gan, f"d{r}", Critic(base=4, resolution=r, kind="spectral", sentence_dim=6))
        for r in (64, 128, 256)
    ),
    (attngan, "d256", Critic(base=4, resolution=256, unconditional=False, sentence_dim=6)),
]


@pytest.mark.parametrize(("names", "net", "module"), FILES)
def test_a_file_holds_one_network_and_says_its_sizes(tmp_path, names, net, module):
    rng = np.random.default_rng(0)
    want = jax.tree.map(lambda x: rng.random(x.shape, np.float32), pretrained.template(module))
    fitting = [t for t in names.TABLES[net] if not lacks(t, want)]
    state = {f"module.{k}": x for k, x in rules.to_torch(fitting[-1], want).items()}
    state["module.h.num_batches_tracked"] = np.zeros((), np.int64)
    save_file({k: np.ascontiguousarray(x) for k, x in state.items()}, tmp_path / "a.safetensors")
    method = names.__name__.split(".")[2].removesuffix("_names")
    main([method, "--from", str(tmp_path / "a.safetensors"), "--to", str(tmp_path / "out")])
    written = sorted(f.name for f in (tmp_path / "out").glob("*.safetensors"))
    assert written == [f"{net}.safetensors"]
    got = pretrained.load_variables(tmp_path / "out" / written[0])
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)
    card = json.loads((tmp_path / "out" / "convert.json").read_text())
    for field, value in card["nets"][net]["sizes"].items():
        assert getattr(module, field) == value


def lacks(table, variables):
    """Whether a table cannot name every array."""
    count = len(jax.tree.leaves(variables))
    return len(rules.to_torch(table, variables)) != count
