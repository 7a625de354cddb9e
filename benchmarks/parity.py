"""Does our training learn as the official one does, from the same start on the same batches?

    python benchmarks/parity.py --system df_gan --checkout DIR [--steps 500] [--save NAME]

The official networks are made, and their weights become ours by the library's names. Both sides
then see the same procedural pictures (`blooms`), captions and latents in the same order: the
official training loop as it is (`benchmarks/peers`), and the library's own step. Sentences are
those of the shipped mini CLIP, turned into a larger space where the official code fixes one
(GALIP); AttnGAN and DM-GAN read with the official encoders, of random weights. Learning rates are
on both sides those of our short runs, or the published ones (GALIP, Souza et al., StyleGAN-T).
Held-out captions are drawn now and then, and the Frechet distance to their pictures is taken in the
space of the mini CLIP, which guides neither side.

Random are, alike on both sides and never trained: AttnGAN's and DM-GAN's encoders; GALIP's CLIP, a
ViT-B/32 but for narrower hidden layers in its blocks; StyleGAN-T's CLIP and DINO, which are
narrower altogether. (Official code takes what classes of these packages it is given, as far as it
does not write sizes out.) What a random trunk sees says little of a picture, so scores of these
systems are weak and slow to improve: it is the curves' agreement that counts. StyleGAN-T's
augmentation is switched off on both sides, by an argument of the official discriminator; pictures
of 32 pixels are not cropped; its blur fades within the run; the noise of its layers and the latents
of each player are drawn once, for both sides.

Every further seed has other weights, pictures and latents: what differs between two official runs
is the noise that a difference between the sides is measured by. A finer measure is --rounding,
which trains our side once more, from weights that are off by about one rounding of float32: the
sides cannot be expected closer to each other than that run is to ours. (Adam's first step without
momentum is the sign of a gradient; where that is next to nothing, rounding decides.) --save keeps
the curves as benchmarks/results/NAME.json and a plot beside it; --add-rounding trains that third
run alone and adds it to the files that are there.
"""

import argparse
import functools
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import report, results, show
from peers.sizes import PARITY, WHERE, draws
from peers.talk import Child, PeerError

SIDES = ("official", "ours")
# Steps that one point of a loss curve averages.
WINDOW = 10
# Steps that are compared one by one: rounding has not grown yet.
FIRST = 4


def opened(job: dict):
    """Our run of a job, for its pictures and captions."""
    from peers.ours import config_of

    from jaxt2i.run import open as runs

    runs.prepare_jax()
    return runs.open_run(config_of(job))


def batches(run, size: dict, steps: int, split: str, seed: int) -> dict[str, np.ndarray]:
    """`steps` batches in one array for each row of the schema, and what each picture draws."""
    run.config.data.seed = seed
    pipeline = run.pipeline(run.source(split), size["batch"], run.method.needs)
    rows = [pipeline.batch_at(step) for step in range(steps)]
    if "stages" in size:  # recurrent encoders take the longest captions first
        rows = [sorted_by_length(row) for row in rows]
    out = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    rng = np.random.default_rng([seed, split == "train"])
    wanted = draws(size) if split == "train" else {"z": draws(size)["z"]}
    return out | {
        name: rng.standard_normal((len(out["image"]), width), dtype=np.float32)
        for name, width in wanted.items()
    }


def sorted_by_length(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A batch with its longest captions first."""
    order = np.argsort(-rows["token_mask"].sum(1), kind="stable")
    return {key: x[order] for key, x in rows.items()}


def with_sentences(rows: dict[str, np.ndarray], first: int, width: int) -> dict[str, np.ndarray]:
    """Rows whose sentences are encoded; the first token becomes the number of the sentence.

    Sentences of more numbers than the mini CLIP's are those, turned into the larger space.
    """
    import jax

    variables = mini().load["text"]()
    encode = jax.jit(functools.partial(mini().text.apply, variables))
    parts = [
        encode(rows["tokens"][i : i + 256], rows["token_mask"][i : i + 256]).sentence
        for i in range(0, len(rows["tokens"]), 256)
    ]
    tokens = rows["tokens"].copy()
    tokens[:, 0] = np.arange(first, first + len(tokens))
    sentence = np.concatenate(parts)
    if sentence.shape[1] < width:
        normal = np.random.default_rng(0).standard_normal((width, sentence.shape[1]))
        sentence = sentence @ np.linalg.qr(normal)[0].T
    return rows | {"sentence": sentence.astype(np.float32), "tokens": tokens}


def mini():
    """The shipped mini CLIP."""
    from jaxt2i.encoders import perception

    return perception.make("mini", dtype=np.float32)


def at_every_size(rows: dict[str, np.ndarray], size: dict) -> dict[str, np.ndarray]:
    """Rows with their pictures at every stage's size too, as our side reduces them."""
    from jaxt2i.nn.stages import pyramid

    sides = [size["resolution"] >> i for i in range(size["stages"])]
    made = {n: [] for n in sides}
    for part in np.array_split(rows["image"], max(1, len(rows["image"]) // 64)):
        for n, image in zip(sides, pyramid(part, tuple(sides)), strict=True):
            made[n].append(np.asarray(image, np.uint8))
    return rows | {f"image_{n}": np.concatenate(images) for n, images in made.items()}


def given(job: dict, args, file: Path) -> np.ndarray:
    """Writes what both sides read; gives the held-out pictures back."""
    run, size = opened(job), job["size"]
    train = batches(run, size, args.steps, "train", job["seed"])
    held_batches = -(-args.held // size["batch"])
    held = batches(run, size, held_batches, run.config.data.eval_split, 0)
    if "stages" in size:
        train = at_every_size(train, size)
        # One batch of captions, so sorted as one.
        held = sorted_by_length(held)
    else:
        train = with_sentences(train, 0, size["sentence"])
        held = with_sentences(held, len(train["z"]), size["sentence"])
    np.savez(file, **train, **{f"held_{k}": x for k, x in held.items() if k != "image"})
    return held["image"]


def learned(args, size: dict, seed: int) -> list[dict]:
    """The sides' curves from one start; with --add-rounding that of the rounded weights alone."""
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = {
            "system": args.system,
            "size": size,
            "checkout": args.checkout,
            "precision": "float32",
            "seed": seed,
            "given": True,
            "batch": "",
            "data": str(folder / "data.npz"),
            "weights": str(folder / "weights.npz"),
        }
        look_at = sorted({*range(0, args.steps + 1, args.look_every), args.steps})
        # The official side first: without its checkout there is nothing to draw pictures for.
        with official(args, job) as side:
            real = given(job, args, folder / "data.npz")
            if not args.add_rounding:
                lines.append(taught(side, args, job, folder, look_at, real))
        if not args.add_rounding:
            with Child("ours", job, python=sys.executable, threads=args.threads) as side:
                lines.append(taught(side, args, job, folder, look_at, real))
        if args.rounding or args.add_rounding:
            job["weights"] = rounded(Path(job["weights"]))
            with Child("ours", job, python=sys.executable, threads=args.threads) as side:
                lines.append(taught(side, args, job, folder, look_at, real, "rounded"))
    return lines


def rounded(file: Path) -> str:
    """A copy of weights that are off by about one rounding of float32; gives its file."""
    rng, out = np.random.default_rng(0), file.with_name("rounded.npz")
    with np.load(file) as held:
        moved = {k: x * (1 + 1e-7 * rng.standard_normal(x.shape)) for k, x in held.items()}
    np.savez(out, **{k: x.astype(np.float32) for k, x in moved.items()})
    return str(out)


def official(args, job: dict) -> Child:
    """The official side."""
    return Child("official", job, python=args.python, threads=args.threads)


def taught(
    side: Child, args, job: dict, folder: Path, look_at: list[int], real, name: str = ""
) -> dict:
    """One side's line: what it is, its losses and scores; `name` is another one than its own."""
    name = name or side.side
    out = folder / name
    out.mkdir()
    batch = job["size"]["batch"]
    answer = side.ask(
        do="learn",
        data=job["data"],
        steps=args.steps,
        batch=batch,
        at_once=job["size"].get("at_once", 0),
        look_at=look_at,
        out=str(out),
    )
    steps = json.loads((out / "losses.json").read_text())
    scores = frechet(real, [np.load(out / f"{step}.npy") for step in look_at])
    line = {
        "system": args.system,
        "seed": job["seed"],
        "side": name,
        "about": side.about,
        **{f"{k}_a_step": round(x / args.steps, 3) for k, x in answer.items()},
        "losses": {k: [x[k] for x in steps] for k in steps[0]},
        "frechet": dict(zip(map(str, look_at), scores, strict=True)),
    }
    show({k: x for k, x in line.items() if k != "losses"})
    return line


def frechet(real: np.ndarray, drawn: list[np.ndarray]) -> list[float]:
    """Distances of sets of pictures, uint8 [N, H, W, 3], to real ones, in mini CLIP's space."""
    import jax

    from jaxt2i.data.schema import unit_range
    from jaxt2i.losses.text import l2_normalize
    from jaxt2i.metrics.frechet import frechet_distance

    sees = mini()
    variables = sees.load["guide"]()

    @jax.jit
    def embed(image):
        return l2_normalize(sees.guide.apply(variables, sees.look(unit_range(image)))[0])

    distance, truth = jax.jit(frechet_distance), embed(real)
    return [round(float(distance(truth, embed(x))), 4) for x in drawn]


def named(line: dict) -> dict[str, np.ndarray]:
    """{the official side's name of a loss: its curve}, averaged over windows."""
    out = {}
    for name, values in line["losses"].items():
        player, _, term = name.partition("/")
        if line["side"] != "official":
            if term.startswith("grad_norm") or not term:
                continue
            name = player if term == "loss" else term
        count = len(values) // WINDOW or 1
        parts = np.array_split(np.asarray(values, float), count)
        out.setdefault(name, np.array([part.mean() for part in parts]))
    return out


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Root of the mean squared difference of two curves."""
    return float(np.sqrt(np.mean(np.square(np.asarray(a) - np.asarray(b)))))


def verdict(lines: list[dict]) -> dict:
    """How far the sides are apart, and how far two official runs are, curve by curve."""
    curves = {}
    for line in lines:
        scores = np.array(list(line["frechet"].values()))
        curves[line["seed"], line["side"]] = {**named(line), "frechet": scores}
    seeds = sorted({line["seed"] for line in lines})
    shared = set.intersection(*map(set, curves.values()))
    out = {}
    for name in sorted(shared):
        first = [curves[seed, "official"][name] for seed in seeds]
        other = [curves[seed, "ours"][name] for seed in seeds]
        pairs = [(i, k) for i in range(len(seeds)) for k in range(i)]
        out[name] = {
            "sides_apart": [round(apart(a, b), 5) for a, b in zip(first, other, strict=True)],
            "official_seeds_apart": [round(apart(first[i], first[k]), 5) for i, k in pairs],
            "our_seeds_apart": [round(apart(other[i], other[k]), 5) for i, k in pairs],
            "first_step_apart": None,
        }
    for name, curve in out.items():
        if name != "frechet":
            steps = [steps_apart(lines, seed, name) for seed in seeds]
            curve["first_step_apart"] = [first for first, *_ in steps]
            curve["next_steps_apart"] = [rest for _, *rest in steps]
    if any(line["side"] == "rounded" for line in lines):
        pair = "ours", "rounded"
        for name, curve in out.items():
            both = [[curves[seed, side][name] for side in pair] for seed in seeds]
            curve["roundings_apart"] = [round(apart(*x), 5) for x in both]
            if name != "frechet":
                steps = [steps_apart(lines, seed, name, pair) for seed in seeds]
                curve["rounding_steps_apart"] = steps
    return {"what": "verdict", "root mean square of differences": out}


def steps_apart(
    lines: list[dict], seed: int, name: str, sides: tuple[str, str] = SIDES
) -> list[float]:
    """How far the sides' losses are apart before anything was learned, and in the next steps."""
    start = {line["side"]: each_step(line, name) for line in lines if line["seed"] == seed}
    pairs = zip(*(start[side] for side in sides), strict=True)
    return [float(f"{abs(a - b):.3g}") for a, b in pairs]


def each_step(line: dict, name: str) -> list[float]:
    """A loss in the first `FIRST` steps, step by step."""
    steps = zip(*line["losses"].values(), strict=True)
    heads = [dict(zip(line["losses"], values, strict=True)) for values in steps][:FIRST]
    return [named({**line, "losses": {k: [x] for k, x in h.items()}})[name][0] for h in heads]


def plot(lines: list[dict], file: Path) -> None:
    """Losses and scores of all sides, as they are kept; one colour a seed."""
    from matplotlib.figure import Figure

    lines = [line for line in lines if "losses" in line]
    names = [n for n in lines[0]["losses"] if n == "g" or n.startswith("d")]
    figure = Figure(figsize=(4 * (len(names) + 1), 3.2), layout="constrained")
    axes = figure.subplots(1, len(names) + 1)
    seeds = sorted({line["seed"] for line in lines})
    for line in lines:
        style = {
            "color": f"C{seeds.index(line['seed'])}",
            "linestyle": {"official": "-", "ours": "--", "rounded": ":"}[line["side"]],
            "label": f"{line['side']}, seed {line['seed']}",
        }
        for axis, name in zip(axes, names, strict=False):
            curve = line["losses"][name]
            axis.plot((np.arange(len(curve)) + 0.5) * WINDOW, curve, **style)
            axis.set(title=f"loss of {name}", xlabel="step")
        axes[-1].plot([*map(int, line["frechet"])], [*line["frechet"].values()], **style)
    axes[-1].set(title="Frechet, mini CLIP", xlabel="step")
    axes[-1].legend(fontsize=7)
    figure.suptitle(f"{lines[0]['system']}: official code and ours, same weights and batches")
    figure.savefig(file, dpi=80)


def kept(lines: list[dict]) -> list[dict]:
    """Lines as they are kept: losses averaged over windows, rounded."""
    return [
        {**line, "losses": {k: [float(f"{x:.4g}") for x in c] for k, c in named(line).items()}}
        if "losses" in line
        else line
        for line in lines
    ]


def with_rounding(args, size: dict) -> list[dict]:
    """The lines that are kept, and those of our side from weights off by one rounding.

    Raises:
      PeerError: where nothing is kept, or what is kept was another run.
    """
    if not args.save:
        raise PeerError("--add-rounding adds to a kept run: name it with --save")
    file = results(args.save)
    if not file.is_file():
        raise PeerError(f"--add-rounding adds to a kept run, and {file} is not there")
    record = json.loads(file.read_text())
    setup, *lines, found = record["lines"]
    wanted = {"size": json.loads(json.dumps(size)), "steps": args.steps, "held": args.held}
    if other := [f"{k} is {setup[k]}, not {x}" for k, x in wanted.items() if setup[k] != x]:
        raise PeerError(f"{file} keeps another run: {'; '.join(other)}")
    ours = {line["seed"]: line for line in lines if line["side"] == "ours"}
    lines = [line for line in lines if line["side"] != "rounded"]
    more = kept([line for seed in ours for line in learned(args, size, seed)])
    for line in more:
        first, again = (x["frechet"] for x in (ours[line["seed"]], line))
        if first.keys() != again.keys() or abs(first["0"] - again["0"]) > 1e-3:
            raise PeerError(f"{file}: seed {line['seed']} began elsewhere, or was drawn otherwise")
    for name, curve in found["root mean square of differences"].items():
        both = [[curve_of(x, name) for x in (ours[line["seed"]], line)] for line in more]
        curve["roundings_apart"] = [round(apart(*x), 5) for x in both]
    first = {k: record["machine"][k] for k in ("cpu", "jax", "commit", "date")}
    return [{**setup, "before_rounding": first}, *lines, *more, show(found)]


def curve_of(line: dict, name: str) -> np.ndarray:
    """A curve of a kept line."""
    return np.array([*line["frechet"].values()] if name == "frechet" else line["losses"][name])


def measured(args, size: dict) -> list[dict]:
    """The lines of a whole run, as they are kept."""
    lines = []
    for seed in map(int, args.seeds.split(",")):
        lines += learned(args, size, seed)
    found = show(verdict(lines))
    setup = {"what": "setup", "size": size, "steps": args.steps, "held": args.held}
    return [setup, *kept(lines), found]


def main(argv: list[str] | None = None) -> int:
    """Measures what the command line asks for."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--system", required=True, choices=WHERE)
    p.add_argument("--checkout", default="", help="folder of the official code")
    p.add_argument("--width", default="small", choices=("small", "tiny"))
    p.add_argument("--steps", type=int, default=500)
    p.add_argument("--seeds", default="0,1")
    p.add_argument("--held", type=int, default=512, help="held-out captions that are drawn")
    p.add_argument("--look-every", type=int, default=50, help="steps between two drawings")
    p.add_argument("--threads", type=int, default=0, help="cores; 0: all")
    p.add_argument("--python", default=sys.executable, help="interpreter that has PyTorch")
    p.add_argument("--rounding", action="store_true", help="a third run, off by one rounding")
    p.add_argument("--add-rounding", action="store_true", help="that run alone, for what is kept")
    p.add_argument("--save", help="name of the files in benchmarks/results")
    args = p.parse_args(argv)
    # This process scores beside a side on the same accelerator.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        sizes = PARITY.get(args.system, {})
        if args.width not in sizes:
            known = ", ".join(f"{s} ({', '.join(x)})" for s, x in PARITY.items())
            raise PeerError(f"{args.system}: no run of width {args.width!r}; there are {known}")
        lines = (with_rounding if args.add_rounding else measured)(args, sizes[args.width])
        report(lines, args.save)
        if args.save:
            plot(lines, results(args.save, "png"))
    except PeerError as error:
        print(f"parity.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
