"""Importing a checkout as it is: what it lacks, what its PyTorch no longer has, where it lies.

Nothing of it is copied into this repository. Files that today's Python or PyTorch cannot read are
rewritten, by the rules that each system names, in a temporary folder.
"""

import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
import shutil
import sys
import tempfile
import types
from collections.abc import Sequence
from pathlib import Path

from peers.sizes import WHERE
from peers.talk import PeerError

# Packages that official code imports at the top of its files and a step never calls.
UNCALLED = (
    *("nltk", "pandas", "skimage", "six", "dill", "psutil", "matplotlib", "webdataset", "click"),
    *("tensorboard", "tqdm", "dateutil", "yaml", "easydict", "scipy", "PIL", "torchvision"),
    *("requests", "pkg_resources", "google", "sklearn", "tensorboardX"),
)


# Files of each checkout that are imported.
NEEDS = {
    "df_gan": ("code/lib/modules.py", "code/models/GAN.py", "code/models/DAMSM.py"),
    "galip": ("code/lib/modules.py", "code/models/GALIP.py"),
    "souza": ("trainer.py", "models/bigGAN_deep.py", "ganlib/losses.py"),
    "stylegan_t": ("training/training_loop.py", "training/loss.py", "networks/generator.py"),
    "attngan": ("code/trainer.py", "code/model.py", "code/miscc/losses.py"),
    "dm_gan": ("code/trainer.py", "code/model.py", "code/miscc/losses.py"),
}


def folder(system: str, given: str, needs: Sequence[str]) -> Path:
    """The checkout's folder.

    Args:
      system: key of `WHERE`.
      given: what the command line names; "" = nothing.
      needs: files that the adapter imports.

    Raises:
      PeerError: names what is missing, and where the code is published.
    """
    get = f"git clone https://github.com/{WHERE[system]} and name it with --checkout"
    if not given:
        raise PeerError(f"{system}: no checkout of the official code was named; {get}")
    root = Path(given).expanduser().resolve()
    if not root.is_dir():
        raise PeerError(f"{system}: --checkout={given} is not a folder; {get}")
    for name in needs:
        if not (root / name).is_file():
            raise PeerError(f"{system}: --checkout={given} has no file {name}; {get}")
    return root


class Anything:
    """Stands for whatever an absent package has: called, read or entered, it gives itself."""

    def __init__(self, *_, **__):
        pass

    def __call__(self, *_, **__):
        return self

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def __iter__(self):
        return iter(())

    def __lt__(self, other):  # versions are compared at import
        return False

    __gt__ = __le__ = __ge__ = __lt__


class Attributes(dict):
    """A dict whose keys are attributes too, as the package easydict has it."""

    def __init__(self, *args, **kw):
        super().__init__()
        for key, value in dict(*args, **kw).items():
            self[key] = value

    def __setitem__(self, key, value):
        super().__setitem__(key, Attributes(value) if type(value) is dict else value)

    __setattr__ = __setitem__

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class StandIn(types.ModuleType):
    """A package that is not installed."""

    __path__: tuple = ()
    __version__ = "99.0"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == "easydict":
            return Attributes
        if self.__name__.startswith("six"):
            return getattr(builtins, name, Anything())
        if name == "parse_version":
            return lambda text: tuple(map(int, re.findall(r"\d+", text)[:2]))
        return Anything()


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages of `UNCALLED` that nothing else finds; asked last.

    Attributes:
      used: names of those that stood in for something.
    """

    first = StandIn("first")

    def __init__(self):
        self.used: list[str] = []

    def find_spec(self, name, path=None, target=None):
        """A stand-in, for a package that is known to be left alone."""
        top = name.partition(".")[0]
        if top not in UNCALLED or not isinstance(sys.modules.get(top, self.first), StandIn):
            return None  # what a package that is there lacks, it lacks
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        """The module."""
        self.used.append(spec.name)
        return StandIn(spec.name)

    def exec_module(self, module):
        """Nothing to run."""


def stand_ins() -> StandIns:
    """Installs the stand-ins, behind everything that is there."""
    found = StandIns()
    sys.meta_path.append(found)
    return found


def needed(system: str, *packages: str) -> None:
    """Refuses to go on without packages whose code a step calls.

    Raises:
      PeerError: says what to install, and into which Python.
    """
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is None or isinstance(spec.loader, StandIns):
            raise PeerError(
                f"{system}: the official code calls the package {package}, which "
                f"{sys.executable} does not have; install it there, or name another interpreter "
                "with --python"
            )


def torchvision():
    """Torchvision; where its compiled operators fit another PyTorch, without them."""
    import torch

    try:
        return importlib.import_module("torchvision")
    except RuntimeError:  # "operator torchvision::nms does not exist": no step calls one
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    before = torch.library.register_fake
    torch.library.register_fake = lambda op, *a, **kw: (
        (lambda f: f) if str(op).startswith("torchvision::") else before(op, *a, **kw)
    )
    try:
        return importlib.import_module("torchvision")
    finally:
        torch.library.register_fake = before


def rewritten(root: Path, rules: Sequence[tuple[str, str]]) -> Path:
    """A temporary copy of a folder's Python files, with regular expressions replaced."""
    out = Path(tempfile.mkdtemp(prefix="peer-"))
    for file in root.rglob("*.py"):
        text = file.read_text(encoding="utf8", errors="replace")
        for pattern, new in rules:
            text = re.sub(pattern, new, text)
        (out / file.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        (out / file.relative_to(root)).write_text(text, encoding="utf8")
    return out


def forget(path: Path) -> None:
    """Removes a temporary copy."""
    shutil.rmtree(path, ignore_errors=True)


def without_cuda() -> None:
    """Makes `.cuda()` keep tensors and modules where they are, for code that asks for it always."""
    import torch

    for kind in (torch.Tensor, torch.nn.Module):
        kind.cuda = lambda self, *_, **__: self
