"""What a system may ask of its training data before it is built."""

from typing import Any

import numpy as np

from jaxt2i.data.readable import readable

# Pictures that are looked at, from all over the split.
PICTURES = 1000
LAYOUT = ("boxes", "box_label", "box_mask")


def layouts(source: Any) -> dict[str, Any]:
    """How often each class of objects occurs, and the mean box.

    Args:
      source: a training split; where it counts its objects (`object_counts`) all of them count,
        else those of `PICTURES` pictures.

    Returns:
      {"classes": number of objects of each class, "pictures": number of pictures behind that,
      "mean_box": cx, cy, w, h in fractions}; nothing where the data has no objects.
    """
    if "boxes" not in source.gives:
        return {}
    size = source.size or PICTURES
    count = min(PICTURES, size)
    numbers = [i * size // count for i in range(count)]
    read = lambda i: source.example(i, LAYOUT)  # noqa: E731
    found = [example for _, example in readable(numbers, read, "the statistics of layouts")]
    there = np.stack([x["box_mask"] for x in found])
    boxes = np.stack([x["boxes"] for x in found])[there].astype(np.float64)
    label = np.stack([x["box_label"] for x in found])[there]
    counted = getattr(source, "object_counts", None)
    classes, pictures = (counted(), size) if counted else (np.bincount(label), len(found))
    if not len(boxes):
        return {}
    mean = np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], 1).mean(0)
    return {
        "classes": np.asarray(classes).tolist(),
        "pictures": pictures,
        "mean_box": [float(np.float32(x)) for x in mean],
    }
