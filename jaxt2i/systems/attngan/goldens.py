"""AttnGAN against its official code's numbers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxt2i.data import pictures as pictures_of
from jaxt2i.data.words import WordTokenizer, words_of
from jaxt2i.systems.attngan import method as attngan
from jaxt2i.systems.attngan import names as tables
from jaxt2i.verify.arrays import Arrays, nchw
from jaxt2i.verify.staged import SIZES, Family

SERVES = ("attngan/*",)


class GivenGame(attngan.Losses):
    """The method's own game on given pictures."""

    def reals(self, batch) -> tuple[jax.Array, ...]:
        """The given pictures."""
        return tuple(batch[f"real{size}"] for size in SIZES)


FAMILY = Family(
    tables=tables,
    generator=attngan.Generator,
    critic=attngan.Critic,
    game=GivenGame(attngan.Model(), 256),
    kind="batch",
    inner={"context": ("stage@", "read", nchw)},
)


def data_pyramid(golden, case) -> Arrays:
    """A box crop, the resize, given crops and mirrors, and the smaller pictures."""
    out, game = {}, attngan.Losses(attngan.Model(), 256)
    for tag in ("cub", "cub_edge", "coco"):
        image = Image.fromarray(case.inputs[f"in_{tag}_image"])
        box = case.inputs[f"in_{tag}_bbox"]
        cut = pictures_of.around(image.size, tuple(box)) if len(box) else (0, 0, *image.size)
        kept = cut[2] - cut[0], cut[3] - cut[1]
        size = [n * 304 // min(kept) for n in kept]
        top, left, flip = case.inputs[f"in_{tag}_top_left_flip"].tolist()
        # The middle of the numbers that lead to this corner.
        at = [(k + 0.5) / (n - 255) for k, n in zip((left, top), size, strict=True)]
        view = pictures_of.random(cut, (256, 256), (*at, 0.25 if flip else 0.75)).show(
            image, "bilinear"
        )
        out[f"out_{tag}_size_after_bbox_crop"] = np.int64(kept)
        out[f"out_{tag}_size_after_resize"] = np.int64(size)
        for x in game.reals({"image": jnp.asarray(view)[None]}):
            out[f"out_{tag}_img{x.shape[1]}"] = nchw(x)[0]
            out[f"out_{tag}_img{x.shape[1]}_mean"] = np.asarray(x).mean((0, 1, 2))
    return out


def text_cases(golden, case) -> dict:
    """The tokeniser, the vocabulary, and padded captions."""
    data = case.data
    tokens = [words_of(line) for line in data["raw"]]
    by_id = ["<end>"]
    for words in tokens:
        by_id += [w for w in dict.fromkeys(words) if w not in by_id]
    ids = [[by_id.index(w) for w in words] for words in tokens]
    split = data["n_train"]
    captions = []
    for known, given in zip(ids, data["get_caption"], strict=True):
        # The subset is drawn; the case says which one it was.
        kept = given["kept_positions"]
        length = len(given["padded"])
        tokenizer = WordTokenizer(by_id, length)
        words = [by_id[i] for i in (known if kept is None else [known[k] for k in kept])]
        padded, mask = tokenizer([" ".join(words)])
        captions.append(
            {
                "ids": known,
                "kept_positions": kept,
                "padded": padded[0].tolist(),
                "length": int(mask.sum()),
            }
        )
    made = {
        "note": "",
        "raw": data["raw"],
        "tokens": tokens,
        "n_train": split,
        "train_ids": ids[:split],
        "test_ids": ids[split:],
        "ixtoword": {str(i): word for i, word in enumerate(by_id)},
        "n_words": len(by_id),
        "get_caption": captions,
    }
    return {"*": made}


CASES: dict[str, Callable[..., Arrays]] = FAMILY.cases() | {
    "text_cases": text_cases,
    "data_pyramid": data_pyramid,
}
