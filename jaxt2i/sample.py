"""python -m jaxt2i.sample --workdir RUN --prompts "a red daisy" "a blue owl"

Draws pictures from the newest checkpoint of a run, or, with --config FILE[:preset] --weights DIR,
from converted weights: PNG files, a captioned grid, and a JSON file that says what was drawn. An
image depends on its prompt and its seed alone, not on what else is drawn with it.

Latent tools, for every method that has a latent:
  --prompts A B --num 4                     rows share a prompt, columns share a latent
  --interpolate A B                         from one caption to another at a fixed latent
  --interpolate-z 1 2 --prompts A           from the latent of seed 1 to that of seed 2
  --interpolate A B --interpolate-z 1 2     both: captions down, latents across

Methods that draw in stages and look at words also show how:
  --stages                                  the pictures of the earlier stages
  --attention                               each word's attention over its picture
"""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxt2i.engine import loop, mesh
from jaxt2i.engine import state as states
from jaxt2i.config import ConfigError
from jaxt2i.run import checkpoint, log
from jaxt2i.run import open as runs

# Pictures per call. Fixed, so that the arithmetic behind an image, and thereby the image, does
# not depend on how many are asked for.
CHUNK = 8
# Pictures of a walk when --num does not say.
WALK = 8


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One picture to draw.

    Attributes:
      prompt: the caption.
      seed: seed of its latent and its noise.
      towards: second caption of a walk, or the prompt again.
      mix: share of the second caption, 0 to 1.
      seed_towards: seed of the second latent of a walk, or the seed again.
      mix_z: how far from the first latent to the second, 0 to 1.
    """

    prompt: str
    seed: int
    towards: str
    mix: float
    seed_towards: int
    mix_z: float

    @property
    def caption(self) -> str:
        """What to write below the picture."""
        said = self.prompt
        if 0 < self.mix < 1:
            said = f"{1 - self.mix:.2f} {self.prompt} + {self.mix:.2f} {self.towards}"
        elif self.mix:
            said = self.towards
        seed = f"{self.seed}"
        if self.seed_towards != self.seed:
            seed = f"{self.seed} to {self.seed_towards} at {self.mix_z:.2f}"
        return f"{said} (z {seed})"


def arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command line, and its --config.KEY=VALUE settings."""
    p = argparse.ArgumentParser(
        prog="python -m jaxt2i.sample",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("--workdir", type=Path, help="the training run")
    p.add_argument("--config", metavar="FILE[:preset]", help="with --weights: the configuration")
    p.add_argument("--weights", type=Path, metavar="DIR", help="what jaxt2i.convert wrote")
    what = p.add_mutually_exclusive_group()
    what.add_argument("--prompts", nargs="+", metavar="TEXT", help="captions")
    what.add_argument("--prompts-file", type=Path, help="a text file, one caption a line")
    what.add_argument(
        "--interpolate", nargs=2, metavar="TEXT", help="walk from one caption to another"
    )
    p.add_argument(
        "--interpolate-z", nargs=2, type=int, metavar="SEED", help="walk from latent to latent"
    )
    p.add_argument("--seed", type=int, default=0, help="seed of the first picture of a prompt")
    p.add_argument("--num", type=int, default=0, help="pictures a prompt, or steps of a walk")
    p.add_argument("--z", type=Path, metavar="FILE.npy", help="latents in place of seeds")
    p.add_argument("--conditions", type=Path, metavar="FILE", help=".jsonl or .json of rows")
    p.add_argument("--from-split", metavar="SPLIT[:A[:B]]", help="rows of the run's own data")
    p.add_argument("--after", type=Path, nargs="+", default=[], metavar="RUN", help="fill rows")
    p.add_argument("--set", nargs="+", default=[], metavar="CONTROL=VALUE", help="as steps=50")
    p.add_argument("--grid", action="store_true", help="only the grid, no single files")
    p.add_argument("--stages", action="store_true", help="also every stage's pictures")
    p.add_argument("--attention", action="store_true", help="also where each word is looked for")
    weights = p.add_mutually_exclusive_group()
    weights.add_argument("--ema", action="store_true", help="averaged weights (the default)")
    weights.add_argument("--raw", action="store_true", help="the weights as trained")
    p.add_argument("--out", type=Path, help="where to write; default WORKDIR/drawn or DIR/drawn")
    args, rest = p.parse_known_args(argv)
    strange = [a for a in rest if not re.match(r"--config\.[\w.]+=", a)]
    if strange:
        p.error(f"unrecognized arguments: {' '.join(strange)}")
    if bool(args.workdir) == bool(args.config and args.weights):
        p.error("give --workdir RUN, or --config FILE[:preset] with --weights DIR")
    if args.workdir and rest:
        p.error(f"{rest[0]}: a run keeps the settings it was trained with")
    texts = args.prompts or args.prompts_file or args.interpolate
    if not (texts or args.conditions or args.from_split):
        p.error("give --prompts, --prompts-file, --interpolate, --conditions or --from-split")
    if args.num < 0:
        p.error(f"--num {args.num}: at least 1")
    if args.z and (args.interpolate_z or args.num > 1):
        p.error("--z gives one latent a prompt: leave --interpolate-z and --num out")
    return args, rest


def read_prompts(args: argparse.Namespace) -> list[str]:
    """The captions of --prompts or --prompts-file.

    Raises:
      ConfigError: for a file that is missing or empty.
    """
    if not args.prompts_file:
        return args.prompts
    if not args.prompts_file.is_file():
        raise ConfigError(f"--prompts-file {args.prompts_file}: no such file")
    lines = args.prompts_file.read_text(encoding="utf-8").splitlines()
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ConfigError(f"--prompts-file {args.prompts_file}: no captions in it, one a line")
    return prompts


def drawings(args: argparse.Namespace) -> tuple[list[Drawing], int]:
    """(what the command line asks for, row by row; pictures a row, 0 where rows mean nothing).

    Raises:
      ConfigError: for a prompts file that is missing or empty.
    """
    steps = args.num if args.num > 1 else WALK
    walk = [float(m) for m in np.linspace(0, 1, steps)]
    if args.interpolate_z:
        a, b = args.interpolate_z
        latents = [(a, b, m) for m in walk]
    elif args.interpolate:
        latents = [(args.seed, args.seed, 0.0)]
    else:
        latents = [(args.seed + k, args.seed + k, 0.0) for k in range(max(args.num, 1))]
    if args.interpolate:
        a, b = args.interpolate
        texts = [(a, b, m) for m in walk]
    else:
        texts = [(prompt, prompt, 0.0) for prompt in read_prompts(args)]
    items = [
        Drawing(prompt, seed, towards, mix, seed_towards, mix_z)
        for prompt, towards, mix in texts
        for seed, seed_towards, mix_z in latents
    ]
    return items, len(latents) if len(latents) > 1 else 0


def slerp(a: jax.Array, b: jax.Array, share: jax.Array) -> jax.Array:
    """Spherical interpolation of latents: Gaussian ones lie near a sphere, which a line leaves.

    Args:
      a: [Z].
      b: [Z].
      share: scalar, 0 gives a and 1 gives b.
    """
    norms = jnp.linalg.norm(a) * jnp.linalg.norm(b)
    angle = jnp.arccos(jnp.clip((a * b).sum() / jnp.maximum(norms, 1e-12), -1, 1))
    # Weights of both ends; on a straight line where the sphere gives no direction.
    near, sine = jnp.sin(angle) < 1e-4, jnp.maximum(jnp.sin(angle), 1e-4)
    first = jnp.where(near, 1 - share, jnp.sin((1 - share) * angle) / sine)
    second = jnp.where(near, share, jnp.sin(share * angle) / sine)
    return first * a + second * b


def configuration(args: argparse.Namespace, settings: list[str]) -> ConfigDict:
    """The configuration of --config with its settings, as jaxt2i.train reads them.

    Raises:
      ConfigError: when the file or a setting does not exist.
    """
    values = flags.FlagValues()
    found = config_flags.DEFINE_config_file("config", None, flag_values=values, lock_config=True)
    try:
        values(["sample", f"--config={args.config}", *settings])
    except (AttributeError, KeyError, ValueError, OSError, flags.Error) as error:
        said = str(error).strip().splitlines()[-1]
        raise ConfigError(f"--config {' '.join([args.config, *settings])}: {said}") from None
    return found.value


def restore(run: runs.Run, workdir: Path) -> tuple[states.State, dict, int]:
    """(state without optimisers, frozen weights, step) of the newest checkpoint, on one device.

    Raises:
      ConfigError: when the run has no usable checkpoint.
    """
    layout = loop.Layout(mesh.make(1, 1, 1, jax.local_devices()[:1]))
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


def from_weights(run: runs.Run, folder: Path) -> tuple[states.State, dict]:
    """(state without optimisers, frozen weights) of converted weights.

    Networks that the folder lacks are left out; only pictures need to be possible.

    Raises:
      ConfigError: names the file, and the array that does not fit.
    """
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"--weights {folder}: no .safetensors in it; it is what python -m jaxt2i.convert "
            "METHOD --from FILE --to DIR writes"
        )
    tree, _ = runs.earlier(str(folder))
    shapes, frozen = states.shapes(run.method, run.batch_spec())
    params, extra = {}, {}
    for net in run.method.trained:
        if net not in tree["params"]:
            continue
        params[net], extra[net] = tree["params"][net], tree["extra"][net]
        wanted = checkpoint.named({"params": shapes.params[net], **shapes.extra.get(net, {})})
        given = checkpoint.named({"params": params[net], **extra[net]})
        for name, want in wanted.items():
            seen = tuple(given[name].shape) if name in given else "nothing"
            if seen != tuple(want.shape):
                raise ConfigError(
                    f"{folder / net}.safetensors has {seen} for {name}, where the configuration "
                    f"asks for {tuple(want.shape)}; is it the --config that these weights belong "
                    "to?"
                )
    log.say(f"weights of {', '.join(params) or 'nothing'} from {folder}")
    state = states.State(jnp.zeros((), jnp.int32), params, extra, {}, {})
    layout = loop.Layout(mesh.make(1, 1, 1, jax.devices()[:1]))
    spec, seed = run.batch_spec(), run.config.seed
    return state, states.create_frozen(run.method, spec, seed, layout.shardings(frozen))


def settled(run: runs.Run, state: states.State, frozen: dict) -> states.State:
    """The state with running statistics of its averaged weights, for methods that ask for it."""
    method = run.method
    sampler = method.sampler
    if not (sampler and sampler.settle):
        return state
    source, size = run.source(run.config.data.split), run.config.batch_size
    # All rows, in each of several processes: all must settle alike.
    rows = run.pipeline(source, size, sampler.needs, process_index=0, process_count=1)

    @jax.jit
    def turn(state, frozen, batch, key):
        ctx = states.context(method, state, frozen, key=key)
        sampler.settle(ctx, batch)
        return ctx.extra

    for number in range(sampler.settle_batches):
        key = states.step_key(run.config.seed, number)
        state = state.replace(extra=turn(state, frozen, rows.batch_at(number), key))
    return state


def given_latents(file: Path, count: int, method) -> np.ndarray:
    """Latents [count, *Z] of --z, one for all prompts or one each.

    Raises:
      ConfigError: when the file does not hold that.
    """
    if method.sampler.latent is None:
        raise ConfigError(f"--z {file}: the method has no latent")
    want = jax.eval_shape(method.sampler.latent, jax.random.key(0)).shape
    try:
        z = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--z {file}: not a readable .npy file ({error})") from None
    if z.shape[1:] != want or len(z) not in (1, count):
        raise ConfigError(
            f"--z {file}: latents of shape {list(z.shape)}, expected {[count, *want]}, one a "
            "picture"
        )
    return np.broadcast_to(z.astype(np.float32), (count, *want))


def highlights(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """A picture for every word, dark where the word is not looked for.

    Args:
      image: uint8 [R, R, 3].
      maps: [T, h, w], shares of attention; each is stretched to its own range.

    Returns:
      uint8 [T, R, R, 3].
    """
    from PIL import Image

    size, out = image.shape[1::-1], []
    for share in maps.astype(np.float32):
        low, high = share.min(), share.max()
        level = np.asarray(Image.fromarray(share).resize(size, Image.Resampling.BILINEAR))
        level = np.clip((level - low) / max(high - low, 1e-8), 0, 1)
        out.append(image * (0.15 + 0.85 * level[..., None]))
    return np.stack(out).astype(np.uint8)


def write_attention(file: Path, run: runs.Run, item: Drawing, image: np.ndarray, maps) -> None:
    """The picture, and below it where each word is looked for, one row a stage."""
    tokens, mask = (x[0] for x in run.tokenizer([item.prompt]))
    count = int(mask.sum())
    # Vocabularies of words say what a position holds; of others the position's number is shown.
    known = getattr(run.tokenizer, "words", None)
    words = [known[t] if known else f"{i}" for i, t in enumerate(tokens[:count])]
    rows, captions = [], []
    for share in maps:
        rows.append(np.concatenate([image[None], highlights(image, share[:count])]))
        captions += [item.caption, *words]
    log.save_grid(file, np.concatenate(rows), captions, count + 1)


def rows_of(args: argparse.Namespace, run: runs.Run) -> Iterator[Row]:
    """The rows that the command line names, without walks."""
    layers = []
    if args.from_split:
        if not (args.prompts or args.prompts_file or args.conditions):
            return system.from_split(run, args.from_split)  # as many as there are, one by one
        layers.append(list(system.from_split(run, args.from_split)))
    if args.conditions:
        layers.append(conditions.read_file(args.conditions))
    if args.prompts or args.prompts_file:
        layers.append([{"prompt": text} for text in read_prompts(args)])
    return conditions.laid_over(*layers)


def walk_rows(drawn_by: system.System, items: list[Drawing], z) -> Iterator[Row]:
    """Rows of a walk, or with given latents: codes of both ends, mixed on the way."""
    ends = {(d.prompt, d.seed) for d in items} | {(d.towards, d.seed_towards) for d in items}
    ends = sorted(ends | {(d.towards, d.seed) for d in items} | {(d.prompt, d.seed_towards) for d in items})
    codes = dict(zip(ends, drawn_by.code([{"prompt": p, "seed": s} for p, s in ends]), strict=True))

    def between(x, y, share):
        return ((1 - share) * x + share * y).astype(x.dtype) if x.dtype.kind == "f" else x

    for i, d in enumerate(items):
        a, b = codes[d.prompt, d.seed], codes[d.towards, d.seed_towards]
        row = {"prompt": d.prompt, "seed": d.seed, "note": dataclasses.asdict(d)}
        row["text_code"] = jax.tree.map(lambda x, y: between(x, y, d.mix), a["text"], b["text"])
        if "z" in a:
            row["z"] = jax.tree.map(lambda x, y: np.asarray(slerp(x, y, d.mix_z)), a["z"], b["z"])
        yield row | ({} if z is None else {"z": z[i]})


def show(args, out: Path, drawn_by: system.System, columns: int) -> None:
    """The grid of a folder's first pictures, and where their words are looked for."""
    from PIL import Image

    rows = sorted(conditions.read_file(out / "metadata.jsonl"), key=lambda r: r["number"])[:GRID]
    if laid_out := [r for r in rows if "objects" in r]:
        keys = ("boxes", "box_label", "box_mask")
        tiles = []
        for row in laid_out:
            example = drawn_by.words.arrays({"objects": row["objects"]}, keys)
            blank = np.full((64, 64, 3), 255, np.uint8)
            image = np.asarray(Image.open(out / row["file_name"])) if "file_name" in row else blank
            names = drawn_by.words.class_names
            tiles.append(data_show.Tile({"image": image, **example}, row["prompt"], names=names))
        data_show.draw(tiles, out / "layouts.png")
    rows = [r for r in rows if "file_name" in r]
    if not rows:
        return
    pictures = [np.asarray(Image.open(out / r["file_name"])) for r in rows]
    captions = [f"{r.get('prompt', '')} (z {r['seed']})" for r in rows]
    log.save_grid(out / "grid.png", np.stack(pictures), captions, columns)
    for row, picture in zip(rows if args.attention else (), pictures, strict=False):
        name = row["file_name"].removesuffix(".png")
        maps = np.load(out / f"{name}_attention.npz")
        item = Drawing(row["prompt"], row["seed"], row["prompt"], 0.0, row["seed"], 0.0)
        maps = [maps[k] for k in maps.files]
        write_attention(out / f"{name}_attention.png", drawn_by.run, item, picture, maps)


def main(argv: Sequence[str]) -> None:
    """Draws what the command line asks for."""
    args, settings = arguments(argv)
    source = args.workdir or args.weights
    if args.workdir:
        drawn_by = system.load(args.workdir, after=args.after, use_ema=not args.raw)
        run = drawn_by.run
    else:
        run = runs.open_run(configuration(args, settings))
        weights = from_weights(run, args.weights)
        drawn_by = system.System(run, *weights, after=tuple(map(system.load, args.after)))
    if args.interpolate_z and run.method.sampler.latent is None:
        raise ConfigError(f"--interpolate-z: {run.config.method} has no latent")
    out, columns = args.out or source / "drawn", 0
    if args.interpolate or args.interpolate_z or args.z:
        items, columns = drawings(args)
        z = given_latents(args.z, len(items), run.method) if args.z else None
        rows = walk_rows(drawn_by, items, z)
    else:
        rows, columns = system.expand(rows_of(args, run), max(args.num, 1), args.seed), args.num
    also = [name for name in ("stages", "attention") if getattr(args, name)]
    controls = dict(pair.split("=", 1) for pair in args.set)
    drawn = drawn_by.stream(system.numbered(rows, out), also=also, **controls)
    count = system.write(out, drawn)
    show(args, out, drawn_by, columns if columns > 1 else 0)
    facts = {"source": str(source), "weights": "raw" if args.raw else "ema", "set": controls}
    (out / "drawn.json").write_text(json.dumps({**facts, "argv": list(argv)}, indent=2) + "\n")
    log.say(f"{count} rows drawn in {out}: metadata.jsonl, grid.png")


if __name__ == "__main__":
    runs.prepare_jax()
    try:
        main(sys.argv[1:])
    except runs.USER_ERRORS as error:
        runs.fail(error)
