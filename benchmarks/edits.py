"""Judges edits of procedural flowers: is the asked colour there, is the rest as it was?

    python benchmarks/edits.py RUN [--step N] [--count 200] [--guidance G] [--hold]
        [--save NAME]

RUN was trained on the corpus `blooms`. Held-out flowers are edited to captions that name another
colour, their region being the flower; a recogniser that no run saw (jaxt2i.recognise) says which
colour and which flower it finds. One JSON line per case: "before" (the sources against the new
captions: chance), "colour" (at some levels of removal), "identity" (nothing removed, the source's
own caption), "free" (everything removed). --save keeps benchmarks/results/NAME.json and a picture:
sources above, their edits below.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from machine import report, show
from PIL import Image

from jaxt2i import load
from jaxt2i.data.drawn import blooms, meaning
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.drawn import Drawn
from jaxt2i.metrics.editing import psnr
from jaxt2i.recognise import judge

TAUS = (0, 200, 400, 700)


def flowers(resolution: int, count: int) -> list[dict]:
    """Held-out flowers: picture, region, its shortest caption, and one of another colour."""
    source, found, index = Synthetic("blooms", resolution, "val"), [], 0
    while len(found) < count:
        said = min(source.captions(index), key=len)
        colour = next((w for w in said.split() if w in blooms.PETALS), "")
        thing = next(iter(meaning.read(said, "blooms").things), None)
        flower = thing and thing.name and blooms.kind(thing.name) == "flower"
        if flower and thing.said.get("colour") == colour:
            example = source.example(index, ("image", "segmentation"))
            turn = blooms.PETALS.index(colour) + 1 + index % (len(blooms.PETALS) - 1)
            other = blooms.PETALS[turn % len(blooms.PETALS)]
            article = "an" if other[0] in "aeiou" else "a"
            asked = re.sub(rf"\b{colour}\b", other, said, count=1)
            asked = re.sub(rf"^an? (?={other})", f"{article} ", asked)
            found.append(example | {"said": said, "asked": asked})
        index += 1
    return found


def scores(edits: np.ndarray, captions: Sequence[str], rows: Sequence[dict]) -> dict[str, float]:
    """Shares of edits whose colour and flower are those of the captions, and fidelity in dB."""
    kinds = judge(edits, captions, "blooms", resolution=edits.shape[1])["kinds"]
    pairs = [(r["image"], x, r["segmentation"] > 0) for r, x in zip(rows, edits, strict=True)]
    return {
        "colour": round(kinds["colour"]["right"], 3),
        "flower": round(kinds["class"]["right"], 3),
        "psnr_outside": round(float(np.mean([psnr(a, b, ~m) for a, b, m in pairs])), 2),
        "psnr_inside": round(float(np.mean([psnr(a, b, m) for a, b, m in pairs])), 2),
    }


def main() -> None:
    """Edits, judges, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("run", help="work directory of a run of iir_net on blooms")
    parser.add_argument("--step", default="newest", help="of its checkpoints")
    parser.add_argument("--count", type=int, default=200, help="flowers that are edited")
    parser.add_argument("--guidance", type=float, help="of the text; default: the run's")
    parser.add_argument("--steps", type=int, help="of the sampler; default: the run's")
    parser.add_argument("--hold", action="store_true", help="steps start from the source outside")
    parser.add_argument("--save", metavar="NAME", help="keep the lines and a picture")
    args = parser.parse_args()
    model = load(args.run, step=args.step)
    rows = flowers(model.run.config.data.resolution, args.count)
    sources = np.stack([r["image"] for r in rows])
    said, asked = [r["said"] for r in rows], [r["asked"] for r in rows]
    own = [(r["segmentation"] > 0).astype(np.uint8) * 255 for r in rows]

    given = {k: v for k in ("guidance", "steps") if (v := getattr(args, k)) is not None}
    given |= {"hold": True} if args.hold else {}

    def edit(captions: list[str], regions: object, count: int = 0, **controls: object) -> Drawn:
        n = count or len(rows)
        chosen = regions if isinstance(regions, str) else regions[:n]
        return model.edit(list(sources[:n]), captions[:n], regions=chosen, **given, **controls)

    lines = [
        show({"case": "before", "caption": "its own"} | scores(sources, said, rows)),
        show({"case": "before", "caption": "another colour"} | scores(sources, asked, rows)),
    ]
    for tau in TAUS:
        found = edit(asked, own, tau=tau).arrays
        lines.append(show({"case": "colour", "tau": tau} | scores(np.stack(found), asked, rows)))
    found = edit(said, "none", tau=0).arrays
    lines.append(show({"case": "identity", "tau": 0} | scores(np.stack(found), said, rows)))
    found = edit(asked, "all", tau=999).arrays
    lines.append(show({"case": "free", "tau": 999} | scores(np.stack(found), asked, rows)))
    for line in lines:
        line.update(count=len(rows), step=model.about["step"], **given)
    if args.save:
        report(lines, args.save)
        shown = np.stack(edit(asked, own, 8, tau=TAUS[1]).arrays)
        sheet = np.concatenate([np.concatenate(list(x), 1) for x in (sources[:8], shown)])
        picture = Image.fromarray(sheet).resize((768, 192), Image.Resampling.NEAREST)
        picture.save(Path(__file__).parent / "results" / f"{args.save}.png")


if __name__ == "__main__":
    main()
