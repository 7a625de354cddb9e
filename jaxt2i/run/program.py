"""A sampler as a program that JAX reads without this package: StableHLO by `jax.export`.

The batch has any size; weights, conditions, seeds and controls that are floats are arguments. What
is compiled in, such as the number of steps, has its default. Pictures are those of `jaxt2i.load`
but for rounding: here all rows are one batch, there a device draws its own chunk at a time.
"""

import itertools
import json
from typing import Any

import jax
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export
from safetensors.numpy import save

from jaxt2i.data.schema import FIELDS, names_of
from jaxt2i.engine import draw, mesh
from jaxt2i.engine import state as states
from jaxt2i.engine.method import Tree
from jaxt2i.run.open import Run

PLATFORMS = ("cpu", "tpu", "cuda")
FILES = PROGRAM, WEIGHTS, ROWS, ABOUT, EXAMPLE = (
    *("sampler.bin", "weights.safetensors", "rows.npz", "sampler.json", "example.py"),
)
# Rows that the example draws.
DRAWN = 2
CAPTIONS = ("a red rose", "a blue owl")
CODE = """import numpy as np
from jax import export
from PIL import Image
from safetensors.numpy import load_file

program = export.deserialize(bytearray(open("sampler.bin", "rb").read()))
weights, rows = load_file("weights.safetensors"), dict(np.load("rows.npz"))
n = len(next(iter(rows.values())))
controls = {{name: np.full(n, value, np.float32) for name, value in {controls}.items()}}
out = program.call(weights, rows, np.arange(n, dtype=np.uint32), controls)
for i, picture in enumerate(np.asarray(out["{output}"])):
    {show}
"""


def write(run: Run, state: states.State, frozen: dict[str, Tree], folder: epath.Path) -> None:
    """Writes program, weights, rows to try it with, what its arguments are, and an example.

    Args:
      run: with a sampler.
      state: its weights, of which drawing reads `params` and `extra` alone.
      frozen: its frozen weights.
      folder: where to; it exists.
    """
    method, spec = run.method, run.row_spec()
    one = mesh.Layout(mesh.make(1, 1, 1, jax.local_devices()[:1]))
    drawer = draw.Drawer(method=method, layout=one)
    wanted = tuple(n for n in drawer.outputs(state, frozen, spec) if n in FIELDS)
    values = draw.read_controls(method, {})
    floats = {n: v for n, v in values.items() if type(v) is float}
    fixed = {n: v for n, v in values.items() if n not in floats}
    both = draw.both(method, fixed, wanted, method.sampler.pixels, True, one)
    weights = flat_of({"params": state.params, "extra": state.extra, "frozen": frozen})

    def sampler(weights, rows, seeds, controls):
        tree = {"params": {}, "extra": {}, "frozen": {}} | unflatten_dict(weights, sep="/")
        held = state.replace(params=tree["params"], extra=tree["extra"], opt={}, ema={}, settled={})
        return both(held, tree["frozen"], rows, seeds, controls)

    (n,) = export.symbolic_shape("n")
    shape = jax.ShapeDtypeStruct
    rows = {k: shape((n, *x.shape[1:]), x.dtype) for k, x in spec.items()}
    given = jax.tree.map(lambda x: shape(x.shape, x.dtype), weights)
    controls = {name: shape((n,), np.float32) for name in floats}
    program = export.export(jax.jit(sampler), platforms=PLATFORMS)(
        given, rows, shape((n,), np.uint32), controls
    )
    (folder / PROGRAM).write_bytes(bytes(program.serialize()))
    (folder / WEIGHTS).write_bytes(save(weights))
    np.savez(folder / ROWS, **example_rows(run))
    show = 'Image.fromarray(picture).save(f"{i}.png")' if wanted[0] == "image" else "print(picture)"
    code = CODE.format(controls=floats, output=wanted[0], show=show)
    (folder / EXAMPLE).write_text(code)
    told = {
        "arguments": ["weights", "rows", "seeds", "controls"],
        "rows": described(spec, "n"),
        "seeds": "uint32 [n]",
        "controls": {name: {"type": "float32 [n]", "default": v} for name, v in floats.items()},
        "compiled_in": fixed,
        "precision": run.config.get("precision", "float32"),
        "outputs": list(wanted),
        "platforms": PLATFORMS,
        "jax": jax.__version__,
    }
    (folder / ABOUT).write_text(json.dumps(told, indent=1) + "\n")


def flat_of(tree: Tree) -> dict[str, np.ndarray]:
    """{path: array} on the host, as safetensors keeps them."""
    flat = flatten_dict(jax.device_get(tree), sep="/")
    return {name: np.array(x, order="C") for name, x in flat.items()}


def described(spec: dict[str, jax.ShapeDtypeStruct], first: str) -> dict[str, Any]:
    """What each condition is, for a person."""
    return {
        name: {
            "type": f"{x.dtype} [{', '.join([first, *map(str, x.shape[1:])])}]",
            "meaning": FIELDS[name].meaning,
        }
        for name, x in spec.items()
    }


def example_rows(run: Run) -> dict[str, np.ndarray]:
    """Conditions to try the program with: captions, or held-out rows where it takes more.

    Raises:
      DataError: where it takes more, and the run's data are not here.
    """
    needs = run.method.sampler.needs
    if set(needs) <= {"tokens", "token_mask"}:
        words, rows = run.words(), [{"prompt": text} for text in CAPTIONS]
    else:
        source = run.source(run.config.data.eval_split)
        words = run.words(names_of(source))
        rows = itertools.islice(run.rows_of(source, itertools.count()), DRAWN)
    arrays = [words.arrays(row, needs) for row in rows]
    return {name: np.stack([row[name] for row in arrays]) for name in needs}
