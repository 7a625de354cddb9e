"""What makes trainings quick where something else is tested."""

import contextlib
from collections.abc import Iterator

import jax
import pytest

from jaxt2i.engine import mesh

# Of processes that tests start. Most of their time goes into compiling: see the flags of
# conftest.py.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1"
)


@contextlib.contextmanager
def one_device() -> Iterator[None]:
    """What is trained inside has one device: for eight, four times as many programs compile."""
    make = mesh.make

    def small(data=-1, fsdp=1, tensor=1, devices=None):
        return make(data, fsdp, tensor, devices or jax.devices()[:1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh, "make", small)
        yield
