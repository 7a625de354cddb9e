"""python -m jaxt2i.sample --workdir RUN --prompts "a red daisy" "a blue owl"

Draws pictures from the newest checkpoint of a run: PNG files, a captioned grid, and a JSON file
that says what was drawn. An image depends on its prompt and its seed alone, not on what else is
drawn with it.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i import runs
from jaxt2i.data import schema
from jaxt2i.engine import checkpoint, log, loop, mesh
from jaxt2i.engine import state as states
from jaxt2i.engine.method import ConfigError

# Pictures per call. Fixed, so that the arithmetic behind an image, and thereby the image, does
# not depend on how many are asked for.
CHUNK = 8


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One picture to draw.

    Attributes:
      prompt: the caption.
      seed: seed of its latent and its noise.
      towards: second caption of an interpolation, or the prompt again.
      mix: share of the second caption, 0 to 1.
    """

    prompt: str
    seed: int
    towards: str
    mix: float = 0.0

    @property
    def caption(self) -> str:
        """What to write below the picture."""
        if not self.mix:
            return self.prompt
        return f"{1 - self.mix:.2f} {self.prompt} + {self.mix:.2f} {self.towards}"


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m jaxt2i.sample", description=__doc__)
    p.add_argument("--workdir", type=Path, required=True, help="the training run")
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompts", nargs="+", metavar="TEXT", help="captions")
    what.add_argument("--prompts-file", type=Path, help="a text file, one caption a line")
    what.add_argument(
        "--interpolate", nargs=2, metavar="TEXT", help="walk from one caption to another"
    )
    p.add_argument("--seed", type=int, default=0, help="seed of the first picture of a prompt")
    p.add_argument("--num", type=int, default=1, help="pictures a prompt, or steps of the walk")
    p.add_argument("--psi", type=float, default=1.0, help="truncation: 1 varied .. 0 typical")
    p.add_argument("--grid", action="store_true", help="only the grid, no single files")
    weights = p.add_mutually_exclusive_group()
    weights.add_argument("--ema", action="store_true", help="averaged weights (the default)")
    weights.add_argument("--raw", action="store_true", help="the weights as trained")
    p.add_argument("--out", type=Path, help="where to write; default WORKDIR/drawn")
    args = p.parse_args(argv)
    if args.num < 1:
        p.error(f"--num {args.num}: at least 1")
    return args


def drawings(args: argparse.Namespace) -> list[Drawing]:
    """What the command line asks for.

    Raises:
      ConfigError: for a prompts file that is missing or empty.
    """
    if args.interpolate:
        a, b = args.interpolate
        steps = args.num if args.num > 1 else 8
        return [Drawing(a, args.seed, b, float(m)) for m in np.linspace(0, 1, steps)]
    prompts = args.prompts
    if args.prompts_file:
        if not args.prompts_file.is_file():
            raise ConfigError(f"--prompts-file {args.prompts_file}: no such file")
        lines = args.prompts_file.read_text(encoding="utf-8").splitlines()
        prompts = [line.strip() for line in lines if line.strip()]
        if not prompts:
            raise ConfigError(f"--prompts-file {args.prompts_file}: no captions in it, one a line")
    return [Drawing(p, args.seed + k, p) for p in prompts for k in range(args.num)]


def restore(run: runs.Run, workdir: Path) -> tuple[states.State, dict, int]:
    """(state without optimisers, frozen weights, step) of the newest checkpoint, on one device.

    Raises:
      ConfigError: when the run has no usable checkpoint.
    """
    layout = loop.Layout(mesh.make(1, 1, 1, jax.devices()[:1]))
    shapes = states.shapes(run.method, run.batch_spec())
    shardings = tuple(map(layout.shardings, shapes))
    fields = ("step", "params", "extra", "ema")
    placed = loop.abstract(shapes[0], shardings[0])
    folder = workdir / checkpoint.FOLDER
    keeper = checkpoint.Checkpoints(workdir) if folder.is_dir() else None
    found = keeper and keeper.restore({f: getattr(placed, f) for f in fields}, partial=True)
    if keeper:
        keeper.close()
    if not found:
        raise ConfigError(
            f"{folder}: no usable checkpoint yet; the run saves one every "
            f"{run.config.checkpoint_every_steps} steps"
        )
    frozen = states.create_frozen(run.method, run.batch_spec(), run.config.seed, shardings[1])
    state = states.State(opt={}, **found[0])
    return state, frozen, int(state.step)


def painter(run: runs.Run, state, frozen, *, use_ema: bool, psi: float) -> Callable:
    """(list of at most CHUNK drawings) -> uint8 pictures."""
    method = run.method
    controls = {"psi": psi} if "psi" in method.controls else {}
    if psi != 1.0 and not controls:
        raise ConfigError(f"--psi {psi}: {run.config.method} has no truncation")

    @jax.jit
    def draw(state, frozen, batch, towards, mix, keys):
        ctx = states.context(method, state, frozen, key=jax.random.key(0), use_ema=use_ema)
        a, b = method.text(ctx, batch), method.text(ctx, towards)

        def between(x, y):
            if not jnp.issubdtype(x.dtype, jnp.floating):
                return x
            share = mix.reshape(-1, *(1,) * (x.ndim - 1)).astype(x.dtype)
            return x + share * (y - x)

        text = jax.tree.map(between, a, b)
        return method.sample(ctx, batch, keys, text=text, **controls)["image"]

    def paint(chunk: Sequence[Drawing]) -> np.ndarray:
        full = [*chunk, *[chunk[-1]] * (CHUNK - len(chunk))]
        keys = jax.vmap(jax.random.key)(jnp.array([d.seed for d in full], jnp.uint32))
        batch, towards = (
            run.prompts(c) for c in ([d.prompt for d in full], [d.towards for d in full])
        )
        mix = np.array([d.mix for d in full], np.float32)
        return schema.to_uint8(jax.device_get(draw(state, frozen, batch, towards, mix, keys)))[
            : len(chunk)
        ]

    return paint


def write(out: Path, items: list[Drawing], images: np.ndarray, facts: dict, single: bool) -> None:
    """PNG files, grid.png and drawn.json."""
    from PIL import Image

    out.mkdir(parents=True, exist_ok=True)
    files = []
    for i, (item, image) in enumerate(zip(items, images, strict=True)):
        name = f"{i:04d}_seed{item.seed}.png" if single else None
        if name:
            Image.fromarray(image).save(out / name)
        files.append({"file": name, **dataclasses.asdict(item)})
    columns = facts.pop("columns")
    log.save_grid(out / "grid.png", images, [d.caption for d in items], columns)
    (out / "drawn.json").write_text(json.dumps({**facts, "images": files}, indent=2) + "\n")


def main(argv: Sequence[str]) -> None:
    """Draws what the command line asks for."""
    args = arguments(argv)
    items = drawings(args)
    run = runs.open_run(runs.read_config(args.workdir))
    if run.method.sample is None:
        raise ConfigError(f"{run.config.method} draws no pictures")
    state, frozen, step = restore(run, args.workdir)
    paint = painter(run, state, frozen, use_ema=not args.raw, psi=args.psi)
    images = np.concatenate([paint(items[i : i + CHUNK]) for i in range(0, len(items), CHUNK)])
    out = args.out or args.workdir / "drawn"
    facts = {
        "workdir": str(args.workdir),
        "step": step,
        "weights": "raw" if args.raw else "ema",
        "psi": args.psi,
        "columns": args.num if args.prompts and args.num > 1 else 0,
    }
    write(out, items, images, facts, single=not args.grid)
    log.say(f"{len(items)} pictures of step {step} in {out}: grid.png, drawn.json")


if __name__ == "__main__":
    runs.prepare_jax()
    try:
        main(sys.argv[1:])
    except runs.USER_ERRORS as error:
        runs.fail(error)
