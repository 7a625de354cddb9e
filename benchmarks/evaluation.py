"""FID and CLIP beside torch-fidelity's, same pictures: python benchmarks/evaluation.py.

Two folders of procedural pictures of 256 px; weights are drawn once and given to both programs.
Ours runs in this process, torch-fidelity (with torch and torchvision, all from PyPI) in another one
after it, both on all cores. Says pictures a second of the whole way from files to scores, and how
far the scores are apart; of CLIP ViT-B/32, which torch-fidelity feeds in another way, the speed
alone. Without torch-fidelity only ours is measured.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
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


def ours(weights: Path, a: Path, b: Path, batch: int) -> dict[str, float]:
    """Scores and seconds of our way, compilation apart."""
    protocol = protocols.get("tf2015")
    looks = scores.looks_of(protocol, tuple(NAMES))
    reader = Reader({"inception_2015": str(weights)}, batch)
    fake, real = sets.of_folder(a), sets.of_folder(b)
    start = time.perf_counter()
    reader.read(sets.of_folder(write(a.parent / "warm", batch, 0)), looks.values())
    warm = time.perf_counter() - start
    start = time.perf_counter()
    seen = reader.read(fake, looks.values())
    seen_real = reader.read(real, [looks["fid"]])
    evidence = scores.Evidence(
        protocol, fake, seen, looks, reader, real, seen_real, intervals=False
    )
    found = {score.metric: score.value for score in scores.compute(tuple(NAMES), evidence)}
    return {**found, "seconds": time.perf_counter() - start, "first_batch_s": warm}


def theirs(script: str, *args) -> dict[str, float]:
    """What torch-fidelity found, in a process of its own."""
    command = [sys.executable, "-c", script, *map(str, args)]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def inception(root: Path, a: Path, b: Path, args, torch: bool) -> dict:
    """FID, Inception Score and KID of both."""
    weights = root / "inception.safetensors"
    save_file(published_weights(0), weights)
    mine = ours(weights, a, b, args.batch)
    line = {"benchmark": "FID, IS, KID", "images": 2 * args.images, "batch": args.batch}
    line |= {f"ours_{k}": round(v, 6) for k, v in mine.items()}
    line["ours_images_per_s"] = round(2 * args.images / mine["seconds"], 2)
    if not torch:
        return line
    found = theirs(THEIRS, weights, a, b, args.batch, min(1000, args.images))
    line["torch_images_per_s"] = round(2 * args.images / found["seconds"], 2)
    line["ours_over_torch"] = round(found["seconds"] / mine["seconds"], 2)
    for metric, name in NAMES.items():
        apart = abs(mine[metric] - found[name]) / abs(found[name])
        line[f"{metric}_relative_difference"] = float(f"{apart:.2e}")
    return line


def clip(root: Path, a: Path, b: Path, args, torch: bool) -> dict:
    """Pictures a second through CLIP ViT-B/32."""
    look = Look("openai_vit_b32", "pillow_bicubic_crop")
    reader = Reader({look.network: "random"}, args.batch)
    reader.read(sets.of_folder(root / "warm"), [look])
    rates = [reader.read(sets.of_folder(x), [look]).images_per_s for x in (a, b)]
    line = {"benchmark": "CLIP ViT-B/32", "images": 2 * args.images, "batch": args.batch}
    line["ours_images_per_s"] = round(sum(rates) / 2, 2)
    if not torch:
        return line
    nets = reader.network(look.network)
    names = rules.to_torch(clip_tables.OPENAI_IMAGE, nets.variables["image"])
    names["text_projection"] = np.zeros((512, 512), np.float32)  # says how wide the space is
    weights = root / "clip.safetensors"
    save_file({name: np.ascontiguousarray(x) for name, x in names.items()}, weights)
    found = theirs(THEIRS_CLIP, weights, a, b, args.batch)
    line["torch_images_per_s"] = round(2 * args.images / found["seconds"], 2)
    line["ours_over_torch"] = round(line["ours_images_per_s"] / line["torch_images_per_s"], 2)
    return line


def main() -> None:
    """Measures what the command line asks for."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--images", type=int, default=256, help="in each folder")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--save", help="name of the file in benchmarks/results")
    args = p.parse_args()
    torch = importlib.util.find_spec("torch_fidelity") is not None
    if not torch:
        print("torch-fidelity is not here: measuring ours alone", file=sys.stderr)
    packages = ("torch", "torchvision", "torch-fidelity") if torch else ()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        a, b = write(root / "a", args.images, 0), write(root / "b", args.images, 10_000)
        lines = [show(measure(root, a, b, args, torch)) for measure in (inception, clip)]
    report([{**line, **{name: version(name) for name in packages}} for line in lines], args.save)


if __name__ == "__main__":
    main()
