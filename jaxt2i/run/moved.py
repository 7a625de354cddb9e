"""Runs whose data lies elsewhere than it did in training."""

import os

from etils import epath
from ml_collections import ConfigDict

from jaxt2i.config import ConfigError
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.files import exists, is_folder


def point(config: ConfigDict, data: str, workdir: epath.PathLike) -> None:
    """Writes into a run's configuration where its data lies now.

    Args:
      config: the run's; changed in place. A list of captions that lay among the data moves along.
      data: the folder; "": where it lay.
      workdir: the run's directory, for messages.

    Raises:
      ConfigError: where there is no such folder, or the run reads none.
    """
    if not data:
        return
    if config.data.source == "synthetic":
        raise ConfigError(
            f"--data {data}: {workdir} was trained on pictures that are drawn on the spot, and "
            "reads no folder; leave --data out"
        )
    if not is_folder(data):
        what = "a file" if exists(data) else "no such folder"
        raise ConfigError(
            f"--data {data}: {what}; give the folder in which the data of {workdir} lies now "
            f"(config.data.source={config.data.source})"
        )
    listed, before = config.data.get("list", ""), config.data.path
    if listed and not exists(listed) and before and is_below(listed, before):
        config.data.list = os.path.join(data, os.path.relpath(listed, before))
    config.data.path = data


def is_below(file: str, folder: str) -> bool:
    """Whether a file lies in a folder, by their names."""
    return not os.path.relpath(file, folder).startswith("..")


def check(config: ConfigDict, workdir: epath.PathLike) -> None:
    """Refuses a run whose data is not where it was.

    Raises:
      DataError: names the folder, and the option that says where the data lies now.
    """
    data = config.data
    if data.source != "synthetic" and data.path and not exists(data.path):
        raise DataError(
            f"{workdir}: its data lay in {data.path}, which does not exist here; give --data DIR, "
            "the folder in which it lies now"
        )
