"""Where each word of a caption is looked for, as pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from jaxt2i.run import log


def highlights(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """A picture for every word, dark where the word is not looked for.

    Args:
      image: uint8 [R, R, 3].
      maps: [T, h, w], shares of attention; each is stretched to its own range.

    Returns:
      uint8 [T, R, R, 3].
    """
    size, out = image.shape[1::-1], []
    for share in maps.astype(np.float32):
        low, high = share.min(), share.max()
        level = np.asarray(Image.fromarray(share).resize(size, Image.Resampling.BILINEAR))
        level = np.clip((level - low) / max(high - low, 1e-8), 0, 1)
        out.append(image * (0.15 + 0.85 * level[..., None]))
    return np.stack(out).astype(np.uint8)


def sheet(file: epath.Path, tokenizer: Any, prompt: str, image: np.ndarray, maps: Sequence) -> None:
    """Writes the picture, and beside it where each word is looked for, one row a stage.

    Args:
      file: the PNG.
      tokenizer: of the run.
      prompt: the caption.
      image: uint8 [R, R, 3].
      maps: [T, h, w] of each stage.
    """
    words, rows, captions = words_of(tokenizer, prompt), [], []
    for share in maps:
        rows.append(np.concatenate([image[None], highlights(image, share[: len(words)])]))
        captions += [prompt, *words]
    log.save_grid(file, np.concatenate(rows), captions, len(words) + 1)


def words_of(tokenizer: Any, prompt: str) -> list[str]:
    """What stands at each position of a caption.

    Vocabularies of words say what a position holds; of others its number is shown.
    """
    tokens, mask = (x[0] for x in tokenizer([prompt]))
    known = getattr(tokenizer, "words", None)
    return [known[t] if known else f"{i}" for i, t in enumerate(tokens[: int(mask.sum())])]
