import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxt2i.convert.__main__ import main
from jaxt2i.convert.rules import to_torch
from jaxt2i.encoders import clip_names as clip
from jaxt2i.encoders import pretrained
from jaxt2i.encoders.clip import ClipImage, ClipText

FIELDS = {"width": 64, "layers": 2, "heads": 1, "joint": 6}
MODULES = {
    "text": ClipText(vocab=11, length=5, **FIELDS),
    "image": ClipImage(resolution=8, patch=4, **FIELDS),
}


@pytest.fixture
def file(tmp_path):
    """A CLIP state dict under OpenAI's names, in a wrapper."""
    rng, state = np.random.RandomState(0), {"logit_scale": np.float32(4.6), "clip.other": [1.0]}
    for net, module in MODULES.items():
        template = pretrained.template(module)
        flat = to_torch(clip.TABLES[net][1], jax.tree.map(_zeros, template))
        state |= {f"clip.{k}": rng.standard_normal(v.shape) for k, v in flat.items()}
    state["clip.logit_scale"] = state.pop("logit_scale")
    path = tmp_path / "own.safetensors"
    save_file({k: np.array(v, np.float32, order="C") for k, v in state.items()}, path)
    return path


def _zeros(x):
    return np.zeros(x.shape, np.float32)


def test_a_file_becomes_a_folder_that_loads_again(file, tmp_path, capsys):
    to = tmp_path / "out"
    assert main(["clip", "--from", str(file), "--to", str(to), "--prefix", "clip."]) == 0
    printed = capsys.readouterr().out
    assert "unused: 1 (other)" in printed
    about = json.loads((to / "convert.json").read_text())
    assert about["source"] == "own.safetensors"
    assert about["sha256"] == pretrained.sha256(file)
    assert about["nets"]["text"]["sizes"]["vocab"] == 11
    for net, module in MODULES.items():
        variables = pretrained.load(str(to), "clip", net)
        assert _shapes(variables) == _shapes(pretrained.template(module))
    scale = pretrained.load_variables(to / "temperature.safetensors")
    assert scale["params"]["logit_scale"] == np.float32(4.6)


def _shapes(tree):
    return jax.tree.map(lambda x: x.shape, tree)


def test_missing_arrays_stop_it_unless_allowed(file, tmp_path, capsys):
    state = pretrained.torch_files.read(file)
    state = {k.removeprefix("clip."): x for k, x in state.items() if "ln_final" not in k}
    cut = tmp_path / "cut.safetensors"
    save_file(state, cut)
    arguments = ["clip", "--from", str(cut), "--to", str(tmp_path / "out"), "--net", "text"]
    assert main(arguments) == 1
    assert "missing: 2 (params/norm/bias, params/norm/scale)" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--allow-missing"]) == 0
    assert (tmp_path / "out" / "text.safetensors").exists()


def test_a_file_of_something_else_is_an_error(tmp_path, capsys):
    path = tmp_path / "x.npz"
    np.savez(path, **{"conv.weight": np.ones(2)})
    assert main(["clip", "--from", str(path), "--to", str(tmp_path)]) == 1
    assert "none of its 1 keys belongs to text, image" in capsys.readouterr().err
    assert main(["dino", "--from", str(path), "--to", str(tmp_path), "--prefix", "d."]) == 1
    assert "no key starts with --prefix 'd.'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["clip", "--from", str(path), "--to", str(tmp_path), "--net", "vision"])


def renamed(file, tmp_path, **prefixes):
    """The state dict several times over: {prefix: value of all its arrays; None: its own}."""
    state = pretrained.torch_files.read(file)
    state = {k.removeprefix("clip."): x for k, x in state.items() if "other" not in k}
    path = tmp_path / "several.npz"
    several = {
        f"{prefix}.{k}": x if fill is None else np.full_like(x, fill)
        for prefix, fill in prefixes.items()
        for k, x in state.items()
    }
    np.savez(path, **several)
    return path


def test_averaged_and_raw_weights_are_told_apart(file, tmp_path, capsys):
    path, to = renamed(file, tmp_path, net=None, net_ema=7), tmp_path / "out"
    asked = ["clip", "--from", str(path), "--to", str(to)]
    assert main([*asked, "--prefix", "net."]) == 0
    printed = capsys.readouterr().out
    assert "taken: the raw weights, under 'net.'" in printed
    assert "under 'net_ema.', averaged, which --prefix net_ema. takes" in printed
    assert json.loads((to / "convert.json").read_text())["unused"][0].startswith("net_ema.")
    assert main([*asked, "--prefix", "net_ema."]) == 0
    assert "taken: the averaged weights, under 'net_ema.'" in capsys.readouterr().out
    leaves = jax.tree.leaves(pretrained.load_variables(to / "text.safetensors"))
    assert all((x == 7).all() for x in leaves)
    assert main(asked) == 1
    assert "keys start with net., net_ema." in capsys.readouterr().err


def test_weights_that_are_no_numbers_are_not_written(file, tmp_path, capsys):
    path = renamed(file, tmp_path, net=np.nan)
    asked = ["clip", "--from", str(path), "--to", str(tmp_path / "out"), "--prefix", "net."]
    assert main(asked) == 1
    assert "arrays hold NaN or infinity, such as text: params/" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main([*asked, "--allow-nan"]) == 0
    assert "hold NaN" in capsys.readouterr().out


def test_what_cannot_be_is_one_line(file, tmp_path, capsys):
    asked = ["clip", "--from", str(file), "--prefix", "clip.", "--to"]
    with pytest.raises(SystemExit, match="2"):
        main([*asked, str(file)])
    assert "a file of that name is there" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*asked, str(tmp_path / "out"), "--half"])
    (tmp_path / "config.json").write_text("{")
    assert main([*asked, str(tmp_path / "out")]) == 1
    assert "config.json: beside the weights, but not readable JSON" in capsys.readouterr().err
