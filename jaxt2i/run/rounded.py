"""What a smaller dtype of the weights changes: pictures and scores, before and after."""

import itertools

import jax
import numpy as np

from jaxt2i.config import ConfigError
from jaxt2i.data.schema import DataError, names_of
from jaxt2i.engine import draw, mesh
from jaxt2i.engine import state as states
from jaxt2i.engine.method import Tree
from jaxt2i.run.open import Run

# Held-out captions that are drawn with both.
DRAWN = 8

Weights = tuple[states.State, dict[str, Tree]]


def change(run: Run, before: Weights, after: Weights, layout: mesh.Layout) -> str:
    """A sentence on how far pictures and scores are apart.

    Args:
      run: with its held-out data; without them nothing is measured, which is said.
      before: (state, frozen) as they were trained.
      after: as they are stored; networks that are not stored are those of `before`.
      layout: where all of them lie.
    """
    try:
        source = run.source(run.config.data.eval_split)
        found = [_pictures(run, source, before, after, layout)]
        found += _scores(run, source, before, after)
    except (DataError, OSError) as error:
        return f"What that changes was not measured: the run's data are not here ({error})."
    return f"Against float32: {'; '.join(filter(None, found)) or 'nothing that could be measured'}."


def _pictures(run: Run, source, before: Weights, after: Weights, layout: mesh.Layout) -> str:
    if run.method.sampler is None:
        return ""
    numbers = itertools.count() if source.size is None else range(source.size)
    rows = list(itertools.islice(run.rows_of(source, numbers, what="the change"), DRAWN))
    words, needs = run.words(names_of(source)), run.method.sampler.needs
    asked = [draw.Request(words.arrays(row, needs), n, about=n) for n, row in enumerate(rows)]
    drawer = draw.Drawer(method=run.method, layout=layout)
    pairs = (dict(_drawn(drawer, weights, asked)) for weights in (before, after))
    a, b = ([out[n] for n in sorted(out)] for out in pairs)
    if "image" not in a[0]:
        return ""
    apart = np.abs(np.stack([x["image"] for x in a]).astype(int) - [x["image"] for x in b])
    return (
        f"pictures of {len(rows)} held-out captions differ by {apart.mean():.2f} of 255 levels on "
        f"average and by {apart.max()} at most"
    )


def _drawn(drawer: draw.Drawer, weights: Weights, asked: list[draw.Request]):
    return ((request.about, out) for request, out in drawer.stream(*weights, asked))


def _scores(run: Run, source, before: Weights, after: Weights) -> list[str]:
    """The scores of training, of as many held-out examples."""
    method, count = run.method, run.config.score_images
    if not (method.score and count):
        return []
    held_out = run.pipeline(source, count, method.scored, caption="first").batch_at(0)

    @jax.jit
    def score(state, frozen, batch):
        key = states.step_key(run.config.seed, 0)
        with method.products():
            return method.score(states.context(method, state, frozen, key=key), batch)

    try:
        a, b = (jax.device_get(score(*weights, held_out)) for weights in (before, after))
    except ConfigError as error:
        if "is needed and not there" not in str(error):
            raise
        return ["its scores were not measured, since an export has no network that makes them"]
    told = ", ".join(f"{name} {a[name]:.4g} -> {b[name]:.4g}" for name in a)
    return [f"scores of {count} held-out examples: {told}"]
