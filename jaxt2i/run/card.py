"""The card of published weights: what they are, of what they were made, and what they are for.

Everything in it is read from the run; what nobody can know of a person's own data is said to be
unknown, to be filled in before others get it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from jaxt2i import places
from jaxt2i.run.open import Run

# As the Hugging Face hub shows it.
FILE, EVALUATION = "README.md", "evaluation.json"
UNKNOWN = "unknown here: say it before you give these weights to others"
# (a part of the perception's name, what it is, its licence).
PERCEPTIONS = (
    ("mclip", "M-CLIP's multilingual text tower, an XLM-RoBERTa", "MIT"),
    ("clip_", "OpenAI's CLIP", "MIT; its model card advises against deployed use"),
    ("dino", "DINO ViT-S/16 of Facebook Research", "Apache-2.0"),
    (
        "mini",
        "the small CLIP that ships with jaxt2i, trained on its procedural pictures",
        "Apache-2.0",
    ),
    ("damsm", "DAMSM's text encoder; published ones come with AttnGAN's code", "MIT for that code"),
)
DRAWS = """Draw from it, with nothing else than `pip install jaxt2i`:

```python
import jaxt2i

model = jaxt2i.load("{place}")
model.sample({example}, num=4).save("drawn")
```

or `python -m jaxt2i.sample --workdir DIR --prompts ...`. A picture depends on its caption, its seed
and its controls alone."""
WEIGHTS = """Weights to start from: `--config.init_from=DIR`, `--config.perception_from=DIR`."""
CONTINUES = """A training that can be continued exactly: optimisers, averages and the place in the
data are in it. The command below goes on from step {step:,} with `--workdir` naming this folder; to
start another run from its weights, `--config.init_from=DIR`; to draw, `jaxt2i.load("DIR")`."""
USE = """Research on text-to-image synthesis, and teaching. Not for pictures of real people, for
decisions about anybody, nor where a wrong picture does harm: nothing filters captions or pictures,
and what the training data show too often, too rarely or wrongly, the pictures do too."""


def data_of(run: Run) -> tuple[str, str]:
    """(what it was trained on, under which licence), in words."""
    data = run.config.data
    count = run.facts.counts.get(data.split)
    size = f"{count:,} examples" if count else "examples without end"
    where = f"split {data.split}, {size}, {data.resolution} px, crop {data.crop}"
    if data.source == "synthetic":
        return f"the procedural corpus `{data.corpus}`, which jaxt2i draws itself; {where}", (
            "none: made by this package (Apache-2.0)"
        )
    name = epath.Path(str(data.path).rstrip("/")).name or str(data.path)
    told = description(data.path) if data.source == "records" else ""
    return f"{data.source} `{name}`; {where}", told or UNKNOWN


def description(path: str) -> str:
    """What the records of `jaxt2i.prepare` say of themselves and of their terms; "" for nothing."""
    if not path:
        return ""
    inside = places.matching(path, "*")
    for folder in (
        epath.Path(path),
        *inside,
        *(y for x in inside for y in places.matching(x, "*")),
    ):
        file = folder / "dataset_info.json"
        if file.is_file():
            try:
                return str(json.loads(file.read_text()).get("description", ""))
            except ValueError:
                return ""
    return ""


def parts_of(run: Run) -> list[tuple[str, str]]:
    """(frozen networks that came from elsewhere, their licence)."""
    config, name = run.config, str(run.config.model.get("perception", ""))
    found = []
    if config.get("perception_from") and any(
        config.model.get(n) for n in ("clip_weights", "text_weights")
    ):
        found.append(("text tower and guide of an earlier run on one's own data", "as this data's"))
    elif name:
        found = [(what, terms) for part, what, terms in PERCEPTIONS if part in f"{name}_"]
        if name.startswith("mclip"):  # its image tower is OpenAI's
            found.append(PERCEPTIONS[1][1:])
    if run.method.borrowed:
        nets = ", ".join(run.method.borrowed)
        found.append((f"{nets}: of an earlier run (config.init_from)", "as the data of that run"))
    return list(dict.fromkeys(found))


def scores_of(run: Run, workdir: epath.Path, told: Mapping[str, Any]) -> list[str]:
    """Lines on what was measured: while it was trained, and by `evaluate`."""
    lines = []
    if told["scores"]:
        network = ", ".join(run.method.guided_by)
        flattered = f", which the training itself looks through ({network})" if network else ""
        lines += [
            f"While training, on {run.config.score_images} held-out examples in the space of its "
            f"own perception{flattered}: to choose checkpoints by, not to compare with others.",
            "",
            *table(
                ("score", "value", "better"),
                [
                    (name, f"{value:.4g}", run.method.better.get(name.partition("/")[2], ""))
                    for name, value in told["scores"].items()
                ],
            ),
            "",
        ]
    file = evaluation(workdir, told["step"])
    if file.is_file():
        found = json.loads(file.read_text())
        lines += [
            f"By `python -m jaxt2i.evaluate`, protocol {found['protocol']['name']}; all of the "
            f"protocol is in `{EVALUATION}`.",
            "",
            *table(
                ("metric", "value", "95 % interval", "pictures"),
                [
                    (
                        score["metric"],
                        f"{score['value']:.4g}",
                        interval(score.get("interval")),
                        str(score.get("facts", {}).get("generated", "")),
                    )
                    for score in found["scores"]
                ],
            ),
        ]
    return lines or ["None: it was never scored."]


def evaluation(workdir: epath.Path, step: int) -> epath.Path:
    """Where `evaluate` left the scores of a step, or an export keeps them."""
    kept = workdir / EVALUATION
    return kept if kept.is_file() else workdir / "evaluation" / f"step_{step:08d}.json"


def interval(found: Mapping[str, float] | None) -> str:
    """An interval in words."""
    return f"{found['low']:.4g} to {found['high']:.4g}" if found else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown."""
    rule = "|" + "---|" * len(head)
    return [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]


def of(run: Run, workdir: epath.Path, told: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The card as Markdown, with the header that the Hugging Face hub reads.

    Args:
      run: the run.
      workdir: its directory.
      told: of `export.card_of`.
      about: what the export says of itself: step, nets, dtype; "kind" where it can be continued.
    """
    name = run.config.method.rpartition(".")[2]
    sampler, data, terms = run.method.sampler, *data_of(run)
    if about.get("kind") == "continue":
        intro = CONTINUES.format(step=told["step"])
    elif sampler is None:
        intro = WEIGHTS
    else:
        prompts = list(run.config.grid.prompts)[:1] or ["a red rose"]
        intro = DRAWS.format(place="DIR", example=json.dumps(prompts, ensure_ascii=False))
    nets = [
        (net, f"{its['parameters']:,}", "trained" if its["trained"] else "frozen")
        for net, its in about["nets"].items()
    ]
    stored = [
        f"Stored in {about['dtype']}, {about['weights']} weights.",
        *(["", about["changed"]] if about.get("changed") else []),
    ]
    kind = ["", "## Networks", "", *table(("network", "parameters", ""), nets), "", *stored]
    parts = [f"- {what}: {licence}" for what, licence in parts_of(run)] or ["none"]
    header = ["---", "library_name: jaxt2i", "license: other"]
    header += ["pipeline_tag: text-to-image"] if sampler else []
    header += ["tags:", "- jax", "- text-to-image", f"- {name}", "---"]
    lines = [
        *(*header, "", f"# {name}, step {told['step']:,}", "", intro, *(kind if nets else [])),
        *("", "## Data", "", f"{data}.", "", f"Licence: {terms}"),
        *("", "## Training", ""),
        f"{told['step']:,} steps, {told['images']:,} pictures, batches of {run.config.batch_size}, "
        f"seed {told['seed']}. All settings are in `config.json`. The command:",
        *("", "```bash", told["command"] or "(not kept)", "```"),
        *("", "## Scores", "", *scores_of(run, workdir, told)),
        *("", "## Pretrained parts and their licences", "", *parts),
        *("", "## Intended use", "", USE, ""),
    ]
    return "\n".join(lines)
