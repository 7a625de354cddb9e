"""FID and CLIP beside torch-fidelity's, same pictures: python benchmarks/evaluation.py.

    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch-fidelity safetensors
    python benchmarks/evaluation.py --python /tmp/torch/bin/python --save evaluation_cpu

Two folders of procedural pictures of 256 px; weights are drawn once and given to both programs.
Ours runs in this process, torch-fidelity (with torch and torchvision, all from PyPI) in another one
after it, both on all cores, turn by turn. Says pictures a second of the whole way from files to
scores, and how far the scores are apart; of CLIP ViT-B/32, which torch-fidelity feeds in another
way, the speed alone. Without torch-fidelity only ours is measured.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import report, show
from PIL import Image
from safetensors.numpy import save_file

from jaxt2i.convert import rules
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.encoders import clip_names as clip_tables
from jaxt2i.encoders import features
from jaxt2i.encoders import inception_names as tables
from jaxt2i.evaluation import scores, sets
from jaxt2i.evaluation.reading import Look, Reader
from jaxt2i.metrics import protocols

NAMES = {
    "fid": "frechet_inception_distance",
    "inception_score": "inception_score_mean",
    "kid": "kernel_inception_distance_mean",
}
THEIRS = """
import json, sys, time
import torch
from safetensors.torch import load_file
from torch_fidelity import calculate_metrics
weights, a, b, batch, size = sys.argv[1:]
torch.save(load_file(weights), weights + ".pth")
start = time.perf_counter()
found = calculate_metrics(
    input1=a, input2=b, cuda=False, isc=True, fid=True, kid=True, batch_size=int(batch),
    kid_subset_size=int(size), verbose=False, cache=False, save_cpu_ram=False,
    feature_extractor="inception-v3-compat", feature_extractor_weights_path=weights + ".pth",
)
print(json.dumps({**found, "seconds": time.perf_counter() - start}))
"""


# torch-fidelity reads OpenAI's archives alone: one with the same names and our random weights.
THEIRS_CLIP = """
import json, sys, time
import torch
from safetensors.torch import load_file
from torch_fidelity import calculate_metrics
weights, a, b, batch = sys.argv[1:]
root = torch.nn.Module()
for name, value in load_file(weights).items():
    *path, last = name.split(".")
    at = root
    for part in path:
        if not hasattr(at, part):
            at.add_module(part, torch.nn.Module())
        at = getattr(at, part)
    at.register_parameter(last, torch.nn.Parameter(value, requires_grad=False))
torch.jit.script(root).save(weights + ".pt")
start = time.perf_counter()
calculate_metrics(
    input1=a, input2=b, cuda=False, fid=True, batch_size=int(batch), verbose=False, cache=False,
    save_cpu_ram=False, feature_extractor="clip-vit-b-32", feature_layer_fid="clip",
    feature_extractor_weights_path=weights + ".pt",
)
print(json.dumps({"seconds": time.perf_counter() - start}))
"""


def write(folder: Path, count: int, first: int) -> Path:
    """A folder of procedural pictures."""
    folder.mkdir()
    source = Synthetic("blooms", 256)
    for i in range(count):
        Image.fromarray(source.example(first + i)["image"]).save(folder / f"{i:05d}.png")
    return folder


def published_weights(seed: int) -> dict[str, np.ndarray]:
    """Random weights under the published names; features of different pictures differ."""
    drawn = features.load("inception_2015", weights="random").variables["features"]
    chance, out = np.random.RandomState(seed), {}
    for name, x in rules.to_torch(tables.FEATURES, drawn).items():
        if x.ndim > 1:
            x = chance.standard_normal(x.shape) * np.sqrt(2 / np.prod(x.shape[1:]))
        out[name] = np.ascontiguousarray(x, np.float32)
    return out


class Ours:
    """Our way from two folders to scores; what is compiled stays."""

    def __init__(self, weights: Path, a: Path, b: Path, batch: int):
        self._protocol = protocols.get("tf2015")
        self._looks = scores.looks_of(self._protocol, tuple(NAMES))
        self._reader = Reader({"inception_2015": str(weights)}, batch)
        self._places = a, b
        start = time.perf_counter()
        self._reader.read(sets.of_folder(write(a.parent / "warm", batch, 0)), self._looks.values())
        self.first_batch_s = time.perf_counter() - start

    def __call__(self) -> dict[str, float]:
        """Scores and seconds."""
        fake, real = map(sets.of_folder, self._places)
        start = time.perf_counter()
        kept = scores.outputs(self._protocol, self._looks)
        seen = self._reader.read(fake, kept)
        seen_real = self._reader.read(real, [self._looks["fid"]])
        evidence = scores.Evidence(
            *(self._protocol, fake, seen, self._looks, self._reader, real, seen_real),
            intervals=False,
        )
        found = {score.metric: score.value for score in scores.compute(tuple(NAMES), evidence)}
        return {**found, "seconds": time.perf_counter() - start}


def theirs(python: str, script: str, *args) -> dict[str, float]:
    """What torch-fidelity found, in a process of its own."""
    command = [python, "-c", script, *map(str, args)]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def rates(images: int, mine: list[float], others: list[float]) -> dict:
    """Pictures a second, medians of the repeats, and each pair's ratio."""
    line = {"ours_images_per_s": round(images / statistics.median(mine), 2)}
    if others:
        line["torch_images_per_s"] = round(images / statistics.median(others), 2)
        ratios = [b / a for a, b in zip(mine, others, strict=True)]
        line["ours_over_torch"] = round(statistics.median(ratios), 2)
        line["ours_over_torch_each"] = [round(x, 2) for x in ratios]
    return line


def inception(root: Path, a: Path, b: Path, args) -> dict:
    """FID, Inception Score and KID of both, turn by turn."""
    weights = root / "inception.safetensors"
    save_file(published_weights(0), weights)
    run, mine, others = Ours(weights, a, b, args.batch), [], []
    for _ in range(args.repeats):
        mine.append(run())
        if args.python:
            given = (weights, a, b, args.batch, min(1000, args.images))
            others.append(theirs(args.python, THEIRS, *given))
    line = {"benchmark": "FID, IS, KID", "images": 2 * args.images, "batch": args.batch}
    line |= {f"ours_{k}": round(v, 6) for k, v in mine[-1].items()}
    line["ours_first_batch_s"] = round(run.first_batch_s, 1)
    seconds = ([x["seconds"] for x in found] for found in (mine, others))
    line |= rates(2 * args.images, *seconds)
    for metric, name in NAMES.items() if others else ():
        apart = abs(mine[-1][metric] - others[-1][name]) / abs(others[-1][name])
        line[f"{metric}_relative_difference"] = float(f"{apart:.2e}")
    return line


def clip(root: Path, a: Path, b: Path, args) -> dict:
    """Pictures a second through CLIP ViT-B/32, turn by turn."""
    look = Look("openai_vit_b32", "pillow_bicubic_crop")
    reader = Reader({look.network: "random"}, args.batch)
    reader.read(sets.of_folder(root / "warm"), [look])
    nets = reader.network(look.network)
    names = rules.to_torch(clip_tables.OPENAI_IMAGE, nets.variables["image"])
    names["text_projection"] = np.zeros((512, 512), np.float32)  # says how wide the space is
    weights = root / "clip.safetensors"
    save_file({name: np.ascontiguousarray(x) for name, x in names.items()}, weights)
    mine, others = [], []
    for _ in range(args.repeats):
        start = time.perf_counter()
        for place in (a, b):
            reader.read(sets.of_folder(place), [look])
        mine.append(time.perf_counter() - start)
        if args.python:
            others.append(theirs(args.python, THEIRS_CLIP, weights, a, b, args.batch)["seconds"])
    line = {"benchmark": "CLIP ViT-B/32", "images": 2 * args.images, "batch": args.batch}
    return line | rates(2 * args.images, mine, others)


def versions(python: str) -> dict[str, str]:
    """Of what the other program is made of."""
    names = ("torch", "torchvision", "torch-fidelity")
    code = (
        "import json; from importlib.metadata import version as v; "
        f"print(json.dumps({{n: v(n) for n in {names}}}))"
    )
    out = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if out.returncode:
        sys.exit(f"--python {python}: torch-fidelity is not there: pip install torch-fidelity")
    return json.loads(out.stdout)


def main() -> None:
    """Measures what the command line asks for."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--images", type=int, default=256, help="in each folder")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--repeats", type=int, default=3, help="of both, turn by turn")
    p.add_argument("--python", default="", help="of an environment with torch-fidelity")
    p.add_argument("--save", help="name of the file in benchmarks/results")
    args = p.parse_args()
    if not args.python and importlib.util.find_spec("torch_fidelity") is not None:
        args.python = sys.executable
    if not args.python:
        print("torch-fidelity is not here: measuring ours alone", file=sys.stderr)
    packages = versions(args.python) if args.python else {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        a, b = write(root / "a", args.images, 0), write(root / "b", args.images, 10_000)
        lines = [show(measure(root, a, b, args)) for measure in (inception, clip)]
    report([{**line, **packages} for line in lines], args.save)


if __name__ == "__main__":
    main()
