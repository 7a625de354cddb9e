"""Numbers that make no sense are named, for every system, and none is that works."""

import dataclasses
import json
import re

import pytest

from jaxt2i.config import ConfigError, at_least, fields, preset_files
from jaxt2i.configs import attngan, df_gan, latent_diffusion, obj_gan_boxes
from jaxt2i.data.schema import DataError, sizes_of, spec
from jaxt2i.engine import mesh
from jaxt2i.engine import state as states
from jaxt2i.run import describe, numbers, settings
from jaxt2i.run import open as runs
from tests.toys import box_gan


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of a system that is none."""

    width: int = 8
    extra: int = 0
    tap: int = -1
    block: int = at_least(-2, 3)
    levels: tuple[int, ...] = (4, 8)
    uses: tuple[bool, ...] = (True, False)
    weight: float = 1.0


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("width", -4, "is -4; expected a whole number from 1 on"),
        ("extra", -1, "is -1; expected a whole number from 0 on"),
        ("block", -3, "is -3; expected a whole number from -2 on"),
        ("levels", (4, -8), r"is \(4, -8\); expected whole numbers from 1 on"),
    ],
)
def test_a_size_below_0_is_refused(key, value, expected):
    with pytest.raises(ConfigError, match=rf"^config\.model\.{key} {expected}$"):
        fields(Model, {key: value}, "config.model")


def test_what_may_be_meant_is_not_refused():
    given = {"width": 0, "tap": -4, "block": -2, "levels": (0,), "uses": (0,), "weight": -1.0}
    assert fields(Model, given, "config.model") == Model(**given)
    assert Model().block == Model.block == 3


@pytest.mark.parametrize("name", preset_files())
def test_every_system_names_each_size_that_is_below_0(name):
    preset = settings.preset(name, "")
    classes, count = describe.settings_classes(preset.method), 0
    (_, section, _), *_ = describe.owners(preset.model, classes, "model")
    for key, value in section.items():
        if type(value) is not int and not (value and type(value) in (tuple, list)):
            continue
        several = type(value) is not int
        if several and type(value[0]) is not int:
            continue
        config = settings.preset(name, "")
        config.model[key] = (-4, *value[1:]) if several else -4
        with pytest.raises(ConfigError, match=rf"config\.model\.{key} is \(?-4.*expected .* on$"):
            runs.load_method(config)
        count += 1
    assert count >= 2


def made(config):
    """The networks of a configuration, as shapes."""
    method = runs.load_method(config)
    sizes = sizes_of(config.data, batch=config.batch_size, tokens=config.data.tokens)
    return states.shapes(method, spec(sizes, method.needs))


def test_a_size_of_0_is_named_where_a_system_does_not_work_with_it():
    config = df_gan.get_config("tiny")
    config.model.z_dim = 0
    said = "config.model.z_dim is 0; expected a whole number from 1 on (ZeroDivisionError: "
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        made(config)
    config = obj_gan_boxes.get_config()
    config.model.mixtures = 0  # met by what draws
    with pytest.raises(ConfigError, match=r"config\.model\.mixtures is 0; expected"):
        runs.open_run(config).outputs()
    config = latent_diffusion.get_config()
    config.model.groups = 0  # met by what builds, before any network is made
    with pytest.raises(ConfigError, match=r"config\.model\.groups is 0; expected"):
        made(config)


def test_no_layers_no_noise_and_what_nothing_reads_are_as_good_as_ever():
    config = attngan.get_config()
    config.model.update(residuals=0, z_dim=0)
    made(config)
    config = df_gan.get_config("tiny")
    config.model.text_vocab = 0  # of another encoder
    config.data.update(objects=-1, captions=0)  # of other systems
    made(config)


def test_a_bug_is_no_setting():
    config = attngan.get_config()
    config.model.update(residuals=0, norm_group=0)
    with pytest.raises(TypeError, match="a bug"), numbers.named(config):
        raise TypeError("a bug")
    with pytest.raises(DataError, match="its own"), numbers.named(config):
        raise DataError("its own")


@pytest.mark.parametrize(
    ("key", "value", "least"),
    [
        ("batch_size", 0, 1),
        ("batch_size", -3, 1),
        ("score_images", -2, 0),
        ("grid.count", -1, 0),
        ("data.latent_factor", 0, 1),
        ("data.web.lanes", 0, 1),
    ],
)
def test_numbers_that_every_run_has(key, value, least):
    config = box_gan.get_config()
    settings.changed(config, {key: value})
    expected = rf"config\.{key} is {value}; expected a whole number from {least} on"
    with pytest.raises(ConfigError, match=expected):
        runs.load_method(config)


@pytest.mark.parametrize("count", [0, -2])
def test_sizes_of_the_data_are_named_where_they_are_needed(count):
    config = box_gan.get_config()
    config.data.objects = count
    with pytest.raises(DataError, match=rf"config\.data\.objects is {count}; expected 1 or more"):
        made(config)


def test_a_mesh_of_no_devices_is_said_as_any_other():
    with pytest.raises(ConfigError, match="fsdp=0"):
        mesh.make(-1, 0, 1)


def test_the_file_of_a_run_is_read_alike(tmp_path):
    config = settings.plain(df_gan.get_config("tiny"))
    config["model"]["z_dim"] = -4
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"config\.model\.z_dim is -4; expected a whole number"):
        runs.open_run(settings.read_config(tmp_path))
