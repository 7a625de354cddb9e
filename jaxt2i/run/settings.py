"""What a configuration says, read: durations in steps, images, epochs or percent."""

from collections.abc import Mapping
from typing import Any

from jaxt2i.engine.method import ConfigError

UNITS = ("steps", "images", "epochs", "percent")


def steps(
    section: Mapping[str, Any],
    name: str,
    *,
    batch_size: int,
    epoch_images: int | None = None,
    total_steps: int | None = None,
) -> int:
    """A duration in steps: the first of NAME_steps, _images, _epochs, _percent that is not 0.

    Args:
      section: config section that holds the keys.
      name: what lasts, such as "total".
      batch_size: global batch.
      epoch_images: examples of one epoch, for `_epochs`.
      total_steps: length of the run, for `_percent`.

    Raises:
      ConfigError: for epochs of an unlimited source, or percents of an unknown total.
    """
    for unit in UNITS:
        value = section.get(f"{name}_{unit}", 0)
        if not value:
            continue
        if unit == "steps":
            return int(value)
        if unit == "images":
            return max(1, round(value / batch_size))
        if unit == "epochs":
            if epoch_images is None:
                raise ConfigError(
                    f"config.{name}_epochs={value}: this data source has no end, so it has no "
                    f"epochs; set config.{name}_steps or config.{name}_images"
                )
            return max(1, round(value * epoch_images / batch_size))
        if total_steps is None:
            raise ConfigError(f"config.{name}_percent={value}: a percentage of what is not known")
        return max(1, round(value / 100 * total_steps))
    return 0
