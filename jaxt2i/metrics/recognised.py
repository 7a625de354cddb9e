"""How much of what captions promise is recognised in pictures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Boxes that share less of their union than this are not of the same object.
LEAST_OVERLAP = 0.3
# Share of the classes that count as rare.
RARE = 0.25


# --- Recognisers against truth -----------------------------------------------------------------


def overlap(a: jax.Array, b: jax.Array) -> jax.Array:
    """Intersection over union of boxes x, y, w, h: [..., N, 4], [..., M, 4] to [..., N, M]."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    high = jnp.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = jnp.maximum(high - jnp.maximum(a[..., :2], b[..., :2]), 0).prod(-1)
    return shared / jnp.maximum(a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - shared, 1e-9)


def found(seen: Mapping[str, jax.Array], true: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Accuracies of a recogniser on pictures whose objects are known.

    Every true object is compared with the seen object that overlaps it most. "colour" and "size"
    ask for the class too.

    Args:
      seen: boxes [B, M, 4], box_label, box_mask [B, M], box_attributes [B, M, K], setting [B, 2].
      true: the same of a batch, with N objects.

    Returns:
      {"class", "colour", "size": share of objects; "count": share of pictures with as many objects
      as there are; "place": share of pictures; "all": share of pictures in which all of this is
      right}.
    """
    share = overlap(true["boxes"], seen["boxes"]) * seen["box_mask"][:, None]
    best = share.argmax(-1)
    pick = jnp.take_along_axis(seen["box_attributes"], best[..., None], 1)
    label = jnp.take_along_axis(seen["box_label"], best, 1)
    named = (share.max(-1) > LEAST_OVERLAP) & (label == true["box_label"])
    right = {"class": named}
    for n, name in enumerate(("colour", "size")):
        right[name] = named & (pick[..., n] == true["box_attributes"][..., n])
    mask = true["box_mask"]
    out = {name: (x & mask).sum() / jnp.maximum(mask.sum(), 1) for name, x in right.items()}
    count = seen["box_mask"].sum(-1) == mask.sum(-1)
    place = seen["setting"][:, 0] == true["setting"][:, 0]
    whole = ((right["colour"] & right["size"]) | ~mask).all(-1)
    out |= {"count": count.mean(), "place": place.mean(), "all": (whole & count & place).mean()}
    return out


# --- Pictures against captions -----------------------------------------------------------------


def tally(verdicts: Iterable) -> dict[str, Any]:
    """Counts verdicts: {"right": share, "of_found": share of those found, "said": number}.

    "of_found" is over promises whose objects are there at all, as VISOR_cond is (Gokhale et al.
    2022, arXiv 2212.10015, section 3); "right" counts the others as broken, as its VISOR does. None
    where nothing was promised.
    """
    right = [v.right for v in verdicts]
    of_found = [v.right for v in verdicts if v.found]
    return {"right": _mean(right), "of_found": _mean(of_found), "said": len(right)}


def _mean(values: Sequence) -> float | None:
    return sum(values) / len(values) if values else None


def _by(verdicts: Iterable, key) -> dict[Any, list]:
    out: dict[Any, list] = {}
    for verdict in verdicts:
        out.setdefault(key(verdict), []).append(verdict)
    return out


def summary(
    verdicts: Sequence[Sequence], numbers: Sequence[int], rarest: Sequence[str]
) -> dict[str, Any]:
    """Scores of many pictures, each held against its caption.

    Args:
      verdicts: of each picture: objects with kind, of, subject, found, right, as
        `jaxt2i.data.drawn.meaning.Verdict` has them.
      numbers: how many objects each caption asks for.
      rarest: classes, those that training shows least often first.

    Returns:
      "kinds": {"class", "colour", "count", "relation", ...: `tally`};
      "promises": share of all promises that are kept;
      "all": share of pictures that keep all of theirs;
      "rare": `tally` of the classes among the rarest quarter;
      "classes": {class: {kind: `tally`}} of promises about things of a class, the rarest first;
      "relations": {words: `tally`};
      "by_picture": {"all", "promises", "rare" and every kind: int [N, 2], how many promises each
      picture keeps and how many its caption makes; of "all" it makes one};
      "numbers": {objects that a caption asks for: {"all": share of pictures, "pictures": number}}.
    """
    everything = [v for those in verdicts for v in those]
    kinds = _by(everything, lambda v: v.kind)
    subjects = _by(everything, lambda v: v.subject)
    whole = [all(v.right for v in those) for those in verdicts]
    rare = set(rarest[: max(1, round(RARE * len(rarest)))])
    asked = {n: [w for w, m in zip(whole, numbers, strict=True) if m == n] for n in set(numbers)}
    relations = _by(kinds.get("relation", ()), lambda v: v.of)

    def counted(wanted: Callable[[Any], bool]) -> np.ndarray:
        kept = [[v.right for v in those if wanted(v)] for those in verdicts]
        return np.array([(sum(right), len(right)) for right in kept])

    by_picture = {
        "all": np.stack([whole, np.ones(len(whole), int)], 1),
        "promises": counted(lambda v: True),
        "rare": counted(lambda v: v.kind == "class" and v.of in rare),
        **{kind: counted(lambda v, kind=kind: v.kind == kind) for kind in kinds},
    }
    return {
        "kinds": {kind: tally(those) for kind, those in kinds.items()},
        "promises": _mean([v.right for v in everything]),
        "all": _mean(whole),
        "by_picture": by_picture,
        "rare": tally([v for v in kinds.get("class", ()) if v.of in rare]),
        "classes": {
            name: {
                kind: tally(those) for kind, those in _by(subjects[name], lambda v: v.kind).items()
            }
            for name in rarest
            if name in subjects
        },
        "relations": {words: tally(those) for words, those in sorted(relations.items())},
        "numbers": {n: {"all": _mean(w), "pictures": len(w)} for n, w in sorted(asked.items())},
    }
