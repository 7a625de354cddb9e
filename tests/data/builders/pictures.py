"""Pictures for official trees that are made on the spot."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """A smooth picture that JPEG keeps nearly as it is."""
    rng = np.random.RandomState(seed)
    small = rng.randint(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def save(file: Path, width: int, height: int, seed: int = 0, mode: str = "RGB") -> Path:
    """Writes a picture, its folders too."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture(width, height, seed, mode).save(file, quality=95)
    return file


def jpeg(width: int, height: int, seed: int = 0, mode: str = "RGB") -> bytes:
    """The bytes of a JPEG file."""
    out = io.BytesIO()
    picture(width, height, seed, mode).save(out, "JPEG", quality=95)
    return out.getvalue()


def cut(file: Path) -> None:
    """Leaves the first half of a file."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
