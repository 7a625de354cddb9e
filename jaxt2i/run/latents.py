"""A run's autoencoder asked once of every picture: `python -m jaxt2i.prepare latents`.

What is kept, and when it serves, is in `jaxt2i.data.sources.latents`.
"""

import posixpath
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxt2i import places
from jaxt2i.config import ConfigError
from jaxt2i.data import sources
from jaxt2i.data.images import Unreadable
from jaxt2i.data.progress import Progress
from jaxt2i.data.schema import height_and_width, unit_range
from jaxt2i.data.sources import files, latents
from jaxt2i.engine import mesh
from jaxt2i.metrics.statistics import weights_digest
from jaxt2i.run.open import Run, open_run

# Pictures of a part: of 512 pixels in float32 half a gigabyte.
PART = 4096


def prepared(config: ConfigDict) -> ConfigDict:
    """The configuration of a run whose latents are to be made: it reads pictures."""
    config = config.copy_and_resolve_references()
    latents.check(config.data)
    config.data.latents = ""
    return config


def write(
    config: ConfigDict,
    folder: str,
    splits: Sequence[str] = (),
    dtype: str = "float32",
    rows: int = 8,
) -> list[str]:
    """Writes the latents of a configuration's pictures; parts that are there stay.

    Several processes share the parts.

    Args:
      config: of a system with an autoencoder.
      folder: where they go; may be gs://.
      splits: none: those of training and of scores.
      dtype: of what is stored, of `latents.DTYPES`.
      rows: pictures that a device encodes at once.

    Returns:
      Lines on what was written.

    Raises:
      ConfigError, DataError: for a system without an autoencoder, and for latents of another one.
    """
    run = open_run(prepared(config))
    data = run.config.data
    encode, digest, shape = encoder_of(run, rows)
    places.make_folder(places.of(folder, "--to"))
    file = posixpath.join(folder, latents.ABOUT)
    about = {"shape": shape, "dtype": dtype, "pixels": latents.pixels(data), "weights": digest}
    if files.exists(file) and (there := latents.about_of(folder)) != about:
        other = next(k for k, v in about.items() if there.get(k) != v)
        raise ConfigError(
            f"--to {folder} holds latents whose {other!r} is another; give another folder, or "
            "remove that one"
        )
    latents.write_json(file, about)
    size = height_and_width(data.resolution)
    lines = []
    for split in splits or dict.fromkeys((data.split, data.eval_split)):
        source = sources.make_source(data, size, split)
        if source.size is None:
            raise ConfigError(
                f"the split {split!r} of config.data.source={data.source!r} has no end, and every "
                "picture of it would need its latent"
            )
        lines.append(write_split(source, split, folder, dtype, encode, rows))
    return lines


def encoder_of(run: Run, rows: int) -> tuple[Callable, str, list[int]]:
    """(uint8 [n, H, W, 3] -> (mean, deviation) on the host; digest of the weights; latent's shape).

    Raises:
      ConfigError: where there is no autoencoder, or one of random weights.
    """
    method, name = run.method, run.method.latents
    if not name:
        raise ConfigError(
            f"{run.config.method} trains on pictures themselves as it is configured; latents are "
            "for systems with an autoencoder, such as configs/iir_net.py:coco"
        )
    if name not in method.pretrained:
        raise ConfigError(
            f"the network {name!r} has random weights as {run.config.method} is configured; "
            "latents are those of the autoencoder that will draw"
        )
    variables, net = method.pretrained[name](), method.nets[name]
    layout = mesh.Layout(mesh.make(devices=jax.local_devices()))
    placed = layout.put_all(variables, layout.everywhere)
    count = rows * layout.parts

    @jax.jit
    def asked(variables, image):
        mean, log_variance = net.apply(variables, unit_range(image), method="encode")
        return mean, jnp.exp(log_variance / 2)

    def encode(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        full = np.concatenate([images, np.repeat(images[-1:], count - len(images), 0)])
        found = jax.device_get(asked(placed, layout.put_all(full, layout.rows)))
        return tuple(x[: len(images)] for x in found)

    size = run.sizes
    image = jax.ShapeDtypeStruct((1, size.height, size.width, 3), jnp.uint8)
    mean, _ = jax.eval_shape(asked, variables, image)
    return encode, weights_digest(variables), list(mean.shape[1:])


def write_split(
    source: Any, split: str, folder: str, dtype: str, encode: Callable, rows: int
) -> str:
    """Writes a split; returns a line on it."""
    parts = range(-(-source.size // PART))
    mine = parts[jax.process_index() :: jax.process_count()]
    progress = Progress(f"latents of {split}", source.size)
    wrote = skipped = 0
    for number in mine:
        name = latents.part_name(split, number)
        if files.exists(posixpath.join(folder, f"{name}.json")):
            continue
        numbers = range(number * PART, min((number + 1) * PART, source.size))
        found, lost = {}, {}
        for group in grouped(source, numbers, rows * jax.local_device_count(), lost, progress):
            both = encode(np.stack(list(group.values())))
            found |= dict(zip(group, zip(*both, strict=True), strict=True))
        latents.write_part(folder, name, dtype, found, lost)
        wrote, skipped = wrote + len(found), skipped + len(lost)
    progress.close()
    whole = "" if len(mine) == len(parts) else " by this process"
    unread = f", {skipped:,} pictures cannot be read" if skipped else ""
    return f"{split}: {wrote:,} latents written{whole}{unread}, of {source.size:,} pictures"


def grouped(
    source: Any, numbers: Sequence[int], count: int, lost: dict[str, str], progress: Progress
) -> Iterator[dict[str, np.ndarray]]:
    """{name: picture} of at most `count` at once; those that cannot be read go into `lost`."""
    group: dict[str, np.ndarray] = {}
    for i in numbers:
        name = ""
        try:
            name = latents.name_of(source, i)
            group[name] = source.example(i, ("image",))["image"]
        except Unreadable as error:
            lost[name or error.name] = error.reason
        progress.step(name in lost or not name)
        if len(group) == count:
            yield group
            group = {}
    if group:
        yield group
