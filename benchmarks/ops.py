"""Times the variants of the operators that dominate a GAN step, forward and backward.

    python benchmarks/ops.py [--only up_conv] [--dtype bfloat16] [--repeats 7] [--save NAME]
    python benchmarks/ops.py --topology v5e:2x2 [--only up_conv] ...    # needs libtpu, no TPU

Prints one JSON line per case: machine, versions, variant, seconds to compile, median milliseconds,
and the ratio to the variant that the library uses: `jaxt2i.nn.fastest.FASTEST` of this platform,
and OP-GAN's objects one by one (config.model.object_loop).
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from machine import facts, report

from jaxt2i.nn import augment, convolution, fastest, nearest, pooling, resample
from jaxt2i.nn.modulated import demodulation, modulated_conv
from jaxt2i.nn.objects import LOOPS, EachObject
from jaxt2i.systems.op_gan.method import Model
from jaxt2i.systems.op_gan.networks import Painted

FIR = resample.setup_filter((1, 3, 3, 1))

# Batch, side before, channels in, channels out: what a 64 px and a 256 px generator do.
UP_CONVS = ((4, 8, 96, 96), (8, 16, 64, 64), (8, 32, 64, 32), (4, 64, 128, 64))
LARGE_UP_CONVS = ((8, 8, 512, 512), (8, 16, 512, 512), (8, 32, 512, 512), (8, 64, 256, 256))
# The same, doubled by nearest neighbour: DF-GAN's small preset, AttnGAN's, GALIP at 224 px.
UP_NEARESTS = ((16, 4, 128, 128), (16, 8, 128, 64), (16, 16, 64, 32), (16, 16, 32, 16))
LARGE_UP_NEARESTS = ((4, 14, 512, 512), (4, 28, 512, 256), (4, 56, 256, 128), (4, 112, 128, 64))
LARGE_UP_NEARESTS += ((8, 8, 256, 512), (8, 64, 64, 128), (8, 128, 32, 64))
# Batch, side, channels in, channels out: the 2x2 windows of doubling in phases.
CONVS = ((16, 16, 64, 128), (4, 32, 32, 128))
LARGE_CONVS = (*CONVS, (4, 28, 512, 1024), (4, 112, 128, 256))
# Side, channels in: one picture of AttnGAN's small size, of its published one, of GALIP.
COLOURS = ((128, 8), (256, 32), (224, 64))
# The halvings of discriminators: DF-GAN's small preset, AttnGAN's at 256 px.
HALVINGS = ((16, 32, 16, 32), (16, 16, 32, 64), (4, 64, 128, 256))
LARGE_HALVINGS = ((4, 128, 64, 128), (4, 64, 128, 256), (4, 32, 256, 512))
# Pictures, side, channels behind, side of a patch: mini-CLIP, CLIP ViT-B/32, DINO ViT-S/16.
PATCHES = ((16, 32, 64, 8),)
LARGE_PATCHES = ((32, 224, 768, 32), (8, 224, 768, 32), (8, 224, 384, 16))
# Pictures, side, channels: what Inception pools.
POOLED = ((4, 147, 64), (4, 71, 192), (4, 35, 288))
AVERAGED = ((4, 35, 288), (4, 17, 768), (4, 8, 2048))
# Batch, side, channels in, channels out, zeros at the borders: of Inception, of DF-GAN's small
# preset and of StyleGAN-T.
FORWARDS = ((4, 149, 32, 32, 0), (4, 147, 32, 64, 1), (4, 73, 80, 192, 0), (4, 35, 96, 96, 1))
FORWARDS += ((16, 16, 64, 64, 1), (8, 32, 128, 128, 1))
# Pictures, side, side behind, channels: GALIP's last doubling, and its small preset's.
NEAREST = ((8, 32, 56, 32),)
LARGE_NEAREST = ((4, 128, 224, 128), (4, 128, 224, 64))
IMAGES = ((8, 32, 3), (8, 128, 3), (8, 32, 64))
# Pictures, objects of each, places for them, side of the maps, channels: OP-GAN's generator, as the
# embedded preset and as the published one have it.
OBJECTS = ((16, 6, 6, 32, 24), (16, 2, 6, 32, 24))
LARGE_OBJECTS = ((16, 10, 10, 64, 96), (16, 3, 10, 64, 96))


# What no platform does otherwise.
ONE_FOR_ALL = {
    **{"modulated_conv": "scaled", "patches": "products"},
    **{"conv_library": "xla", "nearest": "gathers"},
}
# What only counts where a picture is drawn: forward alone.
DRAWN = ("colours",)
# How XLA compiles a variant, where not as `jaxt2i.run.flags` has it: as it would by itself.
OPTIONS = {
    "library": {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE,"
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
    }
}


def per_sample(x: jax.Array, kernel: jax.Array, s: jax.Array) -> jax.Array:
    """Modulated convolution with a kernel for each example: what `modulated_conv` avoids."""
    kernels = kernel * s[:, None, None, :, None] * demodulation(kernel, s)[:, None, None, None]
    return jax.vmap(lambda x, k: resample.conv2d(x[None], k)[0])(x, kernels)


def scattered(x: jax.Array, out: int) -> jax.Array:
    """Nearest neighbours whose gradient adds to scattered places."""
    for axis in (1, 2):
        x = jnp.take(x, nearest.nearest_index(out, x.shape[axis]), axis)
    return x


def own_and_conv(name: str, strides: tuple[int, int], pads: convolution.Pads) -> dict:
    """A convolution with gradients of its own, under their name, and XLA's."""
    how = convolution.Place(strides, pads)
    return {
        name: lambda x, w: convolution.forward(x, w, how),
        "conv": lambda x, w: convolution.plain(x, w, how),
    }


def objects(b: int, there: int, places: int, size: int, features: int, dtype: jnp.dtype) -> tuple:
    """({loop: function}, arguments) of a pathway of OP-GAN's generator in training."""
    random = np.random.RandomState(0)
    shape = random.uniform(0.2, 0.6, (places, b, 2))
    boxes = np.concatenate([random.uniform(0, 1 - shape), shape], -1)
    slots = {
        "boxes": jnp.asarray(boxes, jnp.float32),
        "embedded": jnp.asarray(random.standard_normal((places, b, features)), dtype),
        "mask": jnp.broadcast_to(jnp.arange(places)[:, None] < there, (places, b)),
    }
    h = jnp.asarray(random.standard_normal((b, size, size, features)), dtype)
    net = EachObject(network=Painted(size=size, features=features, dtype=dtype))
    start = net.init(jax.random.key(0), slots, {"h": h})

    def pathway(loop: str) -> Callable:
        def run(params, h):
            given = {**start, "params": params}
            own = net.clone(loop=loop)
            return own.apply(given, slots, {"h": h}, train=True, mutable=["batch_stats"])[0]

        return run

    return {loop: pathway(loop) for loop in LOOPS}, (start["params"], h)


def cases(dtype: jnp.dtype, large: bool) -> Iterator[tuple[str, dict[str, Callable], tuple]]:
    """(name, {variant: function}, arguments); the first variant is the reference one."""
    random = np.random.RandomState(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape), dtype)

    for b, r, i, o in LARGE_UP_CONVS if large else UP_CONVS:
        variants = {
            v: lambda x, k, v=v: resample.up_conv(x, k, FIR, flip=True, variant=v)
            for v in ("dilated", "folded", "resize")
        }
        yield f"up_conv {b}x{r}x{r} {i}->{o}", variants, (normal(b, r, r, i), normal(3, 3, i, o))
    for b, r, i, o in LARGE_UP_NEARESTS if large else UP_NEARESTS:
        variants = {
            v: lambda x, k, v=v: resample.up_nearest_conv(x, k, v)
            for v in ("resize", "phases", *["rows"] * (r >= 12))
        }
        arrays = (normal(b, r, r, i), normal(3, 3, i, o))
        yield f"up_nearest_conv {b}x{r}x{r} {i}->{o}", variants, arrays
    for b, r, c in IMAGES:
        for op in (resample.upsample2d, resample.downsample2d):
            variants = {
                v: lambda x, v=v, op=op: op(x, FIR, variant=v) for v in ("dilated", "matmul")
            }
            yield f"upfirdn {op.__name__} {b}x{r}x{r}x{c}", variants, (normal(b, r, r, c),)
    for b, r, i, o in LARGE_UP_CONVS[:2] if large else UP_CONVS[1:3]:
        variants = {"scaled": modulated_conv, "per_sample": per_sample}
        args = (normal(b, r, r, i), normal(3, 3, i, o), normal(b, i))
        yield f"modulated_conv {b}x{r}x{r} {i}->{o}", variants, args
    for b, r, i, o in LARGE_CONVS if large else CONVS:
        variants = own_and_conv("products", (1, 1), ((1, 1), (1, 1)))
        name = f"weight_gradient {b}x{r}x{r} {i}->{o}, 2x2"
        yield name, variants, (normal(b, r, r, i), normal(2, 2, i, o))
    for r, i in () if large else COLOURS:
        variants = own_and_conv("summed", *convolution.COLOURING[1:])
        yield f"colours 1x{r}x{r} {i}->3", variants, (normal(1, r, r, i), normal(3, 3, i, 3))
    for b, r, i, o, zeros in () if large else FORWARDS:
        kernel = normal(3, 3, i, o)
        how = convolution.Place((1, 1), ((zeros, zeros),) * 2)
        # Without the kernel's gradient, as in a frozen network.
        one = functools.partial(convolution.plain, kernel=kernel, how=how)
        borders = "zeros" if zeros else "no zeros"
        name = f"conv_library {b}x{r}x{r} {i}->{o}, {borders} at the borders"
        yield name, {"xla": one, "library": one}, (normal(b, r, r, i),)
    for b, r, o, c in LARGE_NEAREST if large else NEAREST:
        functions = {"gathers": nearest.resize_nearest, "scattered": scattered}
        variants = {v: functools.partial(f, out=o) for v, f in functions.items()}
        yield f"nearest {b}x{r}x{r}x{c} to {o}", variants, (normal(b, r, r, c),)
    for b, r, o, p in LARGE_PATCHES if large else PATCHES:
        how = convolution.Place((p, p), ((0, 0), (0, 0)))
        variants = {
            "products": convolution.patches,
            "conv": lambda x, k, how=how: convolution.plain(x, k, how),
        }
        arrays = (normal(b, r, r, 3), normal(p, p, 3, o))
        yield f"patches {b}x{r}x{r}->{o}, {p}x{p}", variants, arrays
    for b, r, c in POOLED if large else POOLED[2:]:
        variants = {
            "slices": pooling.max_pool,
            "windows": lambda x: nn.max_pool(x, pooling.WINDOW, pooling.STEPS),
        }
        yield f"max_pool {b}x{r}x{r}x{c}", variants, (normal(b, r, r, c),)
    for b, r, c in AVERAGED if large else AVERAGED[:1]:
        variants = {
            "slices": lambda x: pooling.average_pool(x, padded=True),
            "windows": lambda x: nn.avg_pool(x, pooling.WINDOW, padding="SAME"),
        }
        yield f"average_pool {b}x{r}x{r}x{c}", variants, (normal(b, r, r, c),)
    for i, o in ((512, 512), (256, 256)) if large else ((64, 64),):
        variants = {
            v: lambda k, s, v=v: demodulation(k, s, variant=v) for v in ("reduced", "added")
        }
        yield f"power {i}->{o}", variants, (normal(3, 3, i, o), normal(8, i))
    for b, r, i, o in LARGE_HALVINGS if large else HALVINGS:
        variants = own_and_conv("phases", *convolution.HALVING[1:])
        name = f"input_gradient {b}x{r}x{r} {i}->{o}, 4x4 by steps of 2"
        yield name, variants, (normal(b, r, r, i), normal(4, 4, i, o))
    for b, r, c in IMAGES[:2]:
        rows, cols = jnp.asarray(random.randint(-2, 3, (2, b)))
        variants = {
            v: lambda x, v=v, m=rows, n=cols: augment.translate(x, m, n, variant=v)
            for v in ("matmul", "slice")
        }
        yield f"translate {b}x{r}x{r}x{c}", variants, (normal(b, r, r, c),)
    for b, there, places, r, c in LARGE_OBJECTS if large else OBJECTS:
        name = f"objects {b}x{r}x{r}x{c}, {there} in {places} places"
        yield name, *objects(b, there, places, r, c, dtype)


def chosen(name: str, platform: str = "") -> str:
    """The variant that the library uses on a platform, by default on this one."""
    operation, backend = name.split()[0], platform or jax.default_backend()
    if operation in ONE_FOR_ALL:
        return ONE_FOR_ALL[operation]
    if operation == "objects":
        return Model().object_loop
    if operation == "up_conv" and int(name.split()[1].split("x")[1]) <= resample.LOW:
        return "dilated"
    table = fastest.FASTEST["pool" if operation.endswith("_pool") else operation]
    return table.get({"gpu": "cuda"}.get(backend, backend), table["default"])


def gradients(function: Callable, args: tuple, options: dict | None = None) -> jax.stages.Wrapped:
    """Value and gradients of an operation, as a program; options are the compiler's."""

    def loss(*args):
        return jnp.square(function(*args).astype(jnp.float32)).mean()

    return jax.jit(jax.grad(loss, tuple(range(len(args)))), compiler_options=options)


def estimated(function: Callable, args: tuple, topology: str) -> dict[str, float]:
    """Cycles of a chip that is not here, as its compiler estimates them, and megabytes moved."""
    # Here, as a measurement on this machine needs none of it.
    from jaxt2i.engine import mesh
    from jaxt2i.planning import compiled
    from jaxt2i.run import chips, hlo

    chip = mesh.Layout(mesh.make(1, 1, 1, compiled.devices(chips.target(topology))[:1]))
    given = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=chip.rows) for x in args]
    program = hlo.Program(gradients(function, args).lower(*given).compile().as_text())
    return {"cycles": program.cycles(), "mb": round(program.traffic() / 1e6, 2)}


def timed(step: jax.stages.Wrapped, args: tuple, repeats: int) -> dict[str, float]:
    """Seconds to compile and to run once, then median milliseconds.

    Windows have enough calls for 50 ms.
    """
    start = time.perf_counter()
    jax.block_until_ready(step(*args))
    compiled = time.perf_counter() - start
    start = time.perf_counter()
    jax.block_until_ready(step(*args))
    calls = max(1, min(200, int(0.05 / (time.perf_counter() - start))))
    windows = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls):
            out = step(*args)
        jax.block_until_ready(out)
        windows.append((time.perf_counter() - start) / calls * 1e3)
    return {"compile_s": round(compiled, 2), "ms": round(statistics.median(windows), 4)}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name starts so")
    parser.add_argument("--dtype", default="float32", help="compute dtype")
    parser.add_argument("--repeats", type=int, default=7, help="windows; the median counts")
    parser.add_argument("--large", action="store_true", help="sizes for an accelerator")
    parser.add_argument("--save", metavar="NAME", help="keep as benchmarks/results/NAME.json")
    said = "a TPU that is not here (v5e:2x2): its compiler's estimates instead of times"
    parser.add_argument("--topology", default="", help=said)
    options = parser.parse_args()
    about, lines = facts() | {"dtype": options.dtype}, []
    figure, platform = ("cycles", "tpu") if options.topology else ("ms", "")
    for name, variants, args in cases(jnp.dtype(options.dtype), options.large):
        if not name.startswith(options.only):
            continue
        costs = {}
        for variant, function in variants.items():
            if options.topology:
                costs[variant] = estimated(function, args, options.topology)
                continue
            drawn = name.startswith(DRAWN)
            step = jax.jit(function) if drawn else gradients(function, args, OPTIONS.get(variant))
            costs[variant] = timed(step, args, options.repeats)
        best = chosen(name, platform)
        best = best if best in costs else next(iter(costs))
        for variant, found in costs.items():
            ratio = found[figure] / costs[best][figure]
            line = {"case": name, "variant": variant, **found, "ratio": round(ratio, 3)}
            lines.append(line | {"chosen": variant == best})
            print(json.dumps(lines[-1] | about), flush=True)
    if not lines:
        parser.error(f"--only {options.only!r}: no case's name starts so; some are --large alone")
    report(lines, options.save)


if __name__ == "__main__":
    main()
