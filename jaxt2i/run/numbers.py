"""Numbers of a configuration that make no sense, in sentences in place of what JAX says of them.

`jaxt2i.config.fields` refuses sizes and counts below 0. One of 0 can be meant, as no layers or no
noise are, so it is named where a system does not work with it.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

from ml_collections import ConfigDict

from jaxt2i.config import ConfigError, alike, least_of, too_small, wanted
from jaxt2i.data.schema import DataError
from jaxt2i.encoders.pretrained import WeightsError
from jaxt2i.engine.method import Method
from jaxt2i.run import describe, settings

# The smallest values of settings that every run has, where nothing else refuses smaller ones.
LEAST = {
    "batch_size": 1,
    "data.latent_factor": 1,
    "data.web.lanes": 1,
    "data.web.window": 1,
    "grid.count": 0,
    "score_images": 0,
}


def check(config: ConfigDict) -> None:
    """Refuses impossible numbers among the settings that every run has.

    Raises:
      ConfigError: names the setting.
    """
    there = settings.flat(settings.plain(config))
    for name, least in LEAST.items():
        value = there.get(name, least)
        if not alike(value, least) or value < least:
            raise ConfigError(
                f"config.{name} is {value!r}; expected a whole number from {least} on"
            )


@contextlib.contextmanager
def named(config: ConfigDict) -> Iterator[None]:
    """Around what a system does: where that fails, numbers that are too small are named.

    Raises:
      ConfigError: names all that there are, and what was said of them.
    """
    try:
        yield
    except (ConfigError, DataError, WeightsError, OSError):
        raise
    except Exception as error:
        found = suspects(config)
        if not found:
            raise  # a bug
        said = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError(f"{'; '.join(found)} ({type(error).__name__}: {said})") from error


def naming(method: Method, config: ConfigDict) -> Method:
    """A method that names such numbers where it cannot make its networks or draw; see `named`."""
    told, drawn = named(config), method.sampler
    drawn = drawn and dataclasses.replace(drawn, draw=told(drawn.draw))
    return dataclasses.replace(method, init=told(method.init), sampler=drawn)


def suspects(config: ConfigDict) -> list[str]:
    """Sentences on numbers of `config.model` and `config.optim` that are too small."""
    classes, out = describe.settings_classes(config.method), []
    for name in ("model", "optim"):
        for where, section, cls in describe.owners(config.get(name, {}), classes, name):
            for field in dataclasses.fields(cls):
                value = section.get(field.name)
                if too_small(value, least_of(field)):
                    out.append(f"config.{where}.{field.name} {wanted(value, field)}")
    return out
