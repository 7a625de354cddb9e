"""What holds of every builder in the table."""

import importlib
import pkgutil

import pytest
import tensorflow_datasets as tfds

import jaxt2i.data.builders as package
from jaxt2i.data.builders import BUILDERS, Builder
from tests.data.builders import test_fashiongen, test_multi30k, test_oxford102
from tests.data.builders.built import build
from tests.data.builders.pictures import cut


def test_every_builder_of_the_package_is_in_the_table():
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    # Others, such as tests, may make builders of their own.
    written = {c for c in Builder.__subclasses__() if c.__module__.startswith(package.__name__)}
    assert written == set(BUILDERS.values())


@pytest.mark.parametrize("name", BUILDERS)
def test_tfds_knows_every_builder(name):
    assert tfds.builder_cls(f"jaxt2i_{name}") is BUILDERS[name]
    assert f"jaxt2i_{name}" in tfds.list_builders(with_community_datasets=False)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_instructions_name_every_file_and_the_terms(name, tmp_path):
    made = BUILDERS[name]
    for config in made.BUILDER_CONFIGS or [None]:
        builder = made(data_dir=tmp_path, config=config)
        said = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
        assert made.TITLE
        assert made.TERMS
        assert said.startswith(f"{made.TITLE}. {made.TERMS}")
        assert builder.info.description == f"{made.TITLE}. {made.TERMS}"
        assert any(not need.optional for need in builder.needs())
        for need in builder.needs():
            starts = (f"  {need.path},", f"  {need.path} (")
            (line,) = [line for line in said.splitlines() if line.startswith(starts)]
            assert all(archive in line for archive in need.archives)
            assert need.where in line
            assert ("if you like" in line) == need.optional


def test_expected_counts_are_of_splits_that_are_built(tmp_path):
    roots = {"oxford102": test_oxford102, "fashiongen": test_fashiongen, "multi30k": test_multi30k}
    for name, module in roots.items():
        builder = BUILDERS[name](data_dir=tmp_path / "out")
        items = builder.items(builder.files(module.tree(tmp_path / name)))
        assert set(items) <= set(builder.EXPECTED)


def by_beam(builder, root):
    """As `build` without the reading, with Beam's own runner."""
    options = importlib.import_module("apache_beam.options.pipeline_options")
    config = tfds.download.DownloadConfig(
        manual_dir=root,
        register_checksums=False,
        beam_runner="DirectRunner",
        # Else Beam reads the command line.
        beam_options=options.PipelineOptions([]),
    )
    builder.beam = True
    builder.download_and_prepare(download_config=config)


def stored(folder):
    """{file: bytes} of the records below a folder."""
    files = sorted(folder.rglob("*.tfrecord*"))
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize(
    ("name", "module", "config", "broken"),
    [
        ("oxford102", test_oxford102, None, "jpg/image_00001.jpg"),
        ("fashiongen", test_fashiongen, None, None),  # one description is empty
        ("multi30k", test_multi30k, "task2", "flickr30k-images/10002456.jpg"),
    ],
    ids=["oxford102", "fashiongen", "multi30k"],
)
def test_beam_builds_the_same_examples(tmp_path, name, module, config, broken):
    pytest.importorskip("apache_beam")
    root, made, skips = module.tree(tmp_path / "in"), BUILDERS[name], {}
    if broken:
        cut(root / broken)
    build(made, root, tmp_path / "alone", skips, config=config)
    builder = made(data_dir=tmp_path / "beam", config=config)
    by_beam(builder, root)
    assert builder.skips.counts == skips
    assert sum(skips.values()) == 1
    alone, together = stored(tmp_path / "alone"), stored(tmp_path / "beam")
    assert alone
    assert list(alone) == list(together)
    assert all(alone[name] == together[name] for name in alone)
