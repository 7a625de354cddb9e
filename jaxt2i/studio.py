"""python -m jaxt2i.studio --workdir RUN

A page in the browser that draws with a trained run: captions and seeds, walks between them, the
controls, classes, boxes, photographs and regions that the method reads, stages and attention where
it has them; what was drawn, with its settings, to look back at and to download.

  --workdir RUN                 the run; or --config FILE[:preset] --weights DIR, converted weights
  --after RUN [RUN ...]         earlier systems propose what a row lacks, such as its layout, which
                                the page shows to be changed
  --beside RUN                  a second run that draws the same, side by side

It listens on this machine alone; --host 0.0.0.0 lets everybody in who reaches the machine,
without a password. Needs pip install 'jaxt2i[studio]'.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath

from jaxt2i import api
from jaxt2i.config import ConfigError
from jaxt2i.run import log, settings, trouble
from jaxt2i.run import open as runs

HERE = "127.0.0.1"
# Largest file that a visitor may send.
LARGEST = "64mb"
# Visitors who are drawn for at the same time, picture by picture in turn; others wait.
AT_ONCE = 8


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m jaxt2i.studio",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("--workdir", type=epath.Path, help="the training run")
    p.add_argument("--step", default="newest", help="newest (the default), best, or a number")
    p.add_argument("--config", metavar="FILE[:preset]", help="with --weights: the configuration")
    p.add_argument("--weights", type=epath.Path, metavar="DIR", help="what jaxt2i.convert wrote")
    p.add_argument("--after", type=epath.Path, nargs="+", default=[], metavar="RUN")
    p.add_argument("--beside", type=epath.Path, metavar="RUN", help="draws the same, beside it")
    p.add_argument("--data", default="", metavar="DIR", help="where the run's data lies now")
    p.add_argument("--raw", action="store_true", help="the weights as trained, not averaged")
    p.add_argument("--chunk", type=int, default=0, help="rows a device at once; 0: as suits it")
    p.add_argument("--host", default=HERE, help=f"address to listen on (default {HERE})")
    p.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    args = p.parse_args(argv)
    if bool(args.workdir) == bool(args.config and args.weights):
        p.error("give --workdir RUN, or --config FILE[:preset] with --weights DIR")
    if args.weights and (args.raw or args.data or args.step != "newest"):
        p.error("--step, --data and --raw are for --workdir RUN; converted weights are as they are")
    if args.chunk < 0:
        p.error("--chunk is 1 or more, or 0 for the default")
    if args.port is not None and not 0 < args.port < 65536:
        p.error(f"--port {args.port}: expected a number from 1 to 65535")
    return args


def opened(args: argparse.Namespace) -> list[api.System]:
    """The systems that the command line names: one, or two side by side.

    Raises:
      ConfigError: where one cannot be opened.
    """
    how = {"use_ema": not args.raw}
    after = [api.load(run, **how) for run in args.after]
    how |= {"after": after, "chunk": args.chunk}
    if args.workdir:
        found = [api.load(args.workdir, step=args.step, data_path=args.data, **how)]
    else:
        config = settings.configuration(args.config, [])
        found = [api.load_weights(config, args.weights, after=after, chunk=args.chunk)]
    return [*found, *([api.load(args.beside, **how)] if args.beside else [])]


def launched(systems: Sequence[api.System], folder: Path, host: str, port: int | None) -> Any:
    """The page, served from threads of its own; `.local_url` says where, `.close()` ends it.

    Args:
      systems: what draws.
      folder: for all files of the page.
      host: address to listen on.
      port: None: the first free one.

    Raises:
      ConfigError: where gradio is missing.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError("the studio needs gradio: pip install 'jaxt2i[studio]'")
    # Nothing is told to anybody elsewhere, and no file lies outside of the folder.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "page")
    from jaxt2i.studio_page import drawing, page

    blocks = page.Page(drawing.Systems(systems, folder / "drawn"), folder).build()
    blocks.queue(default_concurrency_limit=AT_ONCE, api_open=False)
    looks = page.looks()
    how = {"quiet": True, "share": False, "ssr_mode": False, "prevent_thread_lock": True}
    blocks.launch(
        server_name=host, server_port=port, max_file_size=LARGEST, footer_links=[], **looks, **how
    )
    return blocks


def main(argv: Sequence[str]) -> None:
    """Serves the page until it is ended."""
    args = arguments(argv)
    runs.prepare_jax()
    systems = opened(args)
    with tempfile.TemporaryDirectory(prefix="jaxt2i-studio-") as folder:
        page = launched(systems, Path(folder), args.host, args.port)
        log.say(f"the studio is at {page.local_url} (Ctrl-C ends it)")
        if args.host not in (HERE, "localhost", "::1"):
            log.say(f"--host {args.host}: everybody who reaches this machine can use it")
        page.block_thread()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (*runs.USER_ERRORS, *trouble.ERRORS) as error:
        log.fail(trouble.line(error))
