"""What an export says of itself: which networks it holds, of which step, and how it is written."""

import json
from typing import Any

from etils import epath

from jaxt2i.config import ConfigError

# Written by `jaxt2i.run.portable`, in this way today.
FILE, FORMAT = "export.json", 1


def read(folder: epath.Path) -> dict[str, Any] | None:
    """What an export says of itself; None: the folder is none.

    Raises:
      ConfigError: where that is damaged or lost, or written in a way that is not known here.
    """
    path = folder / FILE
    if not path.is_file():
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            raise ConfigError(
                f"{folder} holds weights and their settings, and no {FILE}, which says what they "
                "are; fetch or export it again"
            )
        return None
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        written, nets, step = int(about["format"]), dict(about["nets"]), int(about["step"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is damaged ({type(error).__name__}: {error}); fetch or export it again"
        ) from None
    if written > FORMAT:
        raise ConfigError(
            f"{folder} was exported by a later version of jaxt2i ({about.get('version')}); "
            "install that one: pip install -U jaxt2i"
        )
    return about | {"nets": nets, "step": step}
