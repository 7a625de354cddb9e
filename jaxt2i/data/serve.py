"""python -m jaxt2i.data.serve dispatcher|worker

Input on other machines: a tf.data service for `--config.data.service=HOST:PORT`. One dispatcher,
and as many workers as it takes; each must see the data under the same path as the trainer does.

  python -m jaxt2i.data.serve dispatcher --port 5050
  python -m jaxt2i.data.serve worker --dispatcher HOST:5050

A worker opens whatever data a trainer asks for, and makes whole batches. Which worker makes which
batch is left to the dispatcher; the trainer puts them in order, so that training sees the same
examples as without a service. Workers may come and go. The service has no authentication: keep it
inside a private network.
"""

import argparse
import functools
import json
import sys
import threading
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from jaxt2i.data import schema, sources, stream, tokenize
from jaxt2i.data.pipeline import Pipeline, aligned
from jaxt2i.data.schema import DataError
from jaxt2i.data.tf import tensorflow

_opening = threading.Lock()


@functools.lru_cache(maxsize=8)
def _opened(recipe: bytes) -> Pipeline:
    """The pipeline that a trainer describes.

    Raises:
      DataError: when the data differs from what the trainer sees.
    """
    asked = json.loads(recipe)
    data = ConfigDict(asked["data"])
    sizes = schema.Sizes(**asked["sizes"])
    source = sources.make_source(data, sizes.resolution, data.split)
    if source.size != asked["examples"]:
        raise DataError(
            f"a worker of config.data.service sees {source.size} examples in {data.path!r}, the "
            f"trainer {asked['examples']}; both must read the same data under the same path"
        )
    tokenizer = tokenize.make_tokenizer(data.tokenizer, data.tokens) if data.tokenizer else None
    return Pipeline(source, tokenizer, sizes, tuple(asked["needs"]), **asked["options"])


def opened(recipe: bytes) -> Pipeline:
    """The pipeline that `stream.recipe` describes, opened once however many ask."""
    with _opening:
        return _opened(recipe)


def make(recipe: bytes, position: np.ndarray) -> list:
    """A batch, for TensorFlow.

    Args:
      recipe: of `stream.recipe`.
      position: the first one of the global batch.

    Returns:
      One array for each needed key, and JSON on what happened: {"replaced": [[name, reason], ...]}
      or {"error": message} with empty arrays.
    """
    replaced: list[tuple[str, str]] = []
    try:
        pipeline = opened(bytes(recipe))
        step = int(position) // pipeline.sizes.batch
        batch = pipeline.written_batch_at(step, lambda *what: replaced.append(what), aligned)
        said = {"replaced": replaced}
    except (DataError, OSError) as error:
        asked = json.loads(bytes(recipe))
        kinds = schema.spec(schema.Sizes(**asked["sizes"]), tuple(asked["needs"]))
        batch = {key: np.zeros(0, kind.dtype) for key, kind in kinds.items()}
        said = {"error": str(error)}
    needs = json.loads(bytes(recipe))["needs"]
    return [*(batch[key] for key in needs), json.dumps(said).encode()]


def register() -> None:
    """Makes `make` known to TensorFlow in this process by the name that trainers use.

    There is no public way: `tf.numpy_function` gives names of its own.
    """
    from tensorflow.python.ops import script_ops

    script_ops._py_funcs._funcs[stream.TOKEN] = make


def dispatcher(port: int):
    """A running dispatcher; port 0 takes any."""
    service = tensorflow().data.experimental.service
    return service.DispatchServer(service.DispatcherConfig(port=port))


def worker(address: str, port: int, host: str):
    """A running worker of a dispatcher.

    Args:
      address: the dispatcher's, host:port.
      port: 0 takes any.
      host: the name by which trainers reach this machine.
    """
    service = tensorflow().data.experimental.service
    register()
    config = service.WorkerConfig(
        dispatcher_address=address, port=port, worker_address=f"{host}:{port or '%port%'}"
    )
    return service.WorkerServer(config)


def main(argv: Sequence[str]) -> None:
    """Runs the command line; ends when it is interrupted."""
    p = argparse.ArgumentParser(
        prog="python -m jaxt2i.data.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("role", choices=("dispatcher", "worker"))
    p.add_argument("--port", type=int, default=0, help="to listen at; default any")
    p.add_argument("--dispatcher", metavar="HOST:PORT", help="whose worker this is")
    p.add_argument("--host", default="localhost", help="the name of this machine for trainers")
    args = p.parse_args(argv)
    if args.role == "worker" and not args.dispatcher:
        p.error("a worker needs --dispatcher HOST:PORT")
    if args.role == "dispatcher":
        server = dispatcher(args.port)
        print(f"dispatcher at {server.target.removeprefix('grpc://')}", flush=True)
    else:
        server = worker(args.dispatcher, args.port, args.host)
        print(f"worker of {args.dispatcher}", flush=True)
    server.join()


if __name__ == "__main__":
    main(sys.argv[1:])
