"""python -m jaxt2i.from_folder DIR --to runs/mine

From a folder of captioned pictures to a system that draws such pictures: looks at them, chooses
settings by their number, sizes and captions and says which and why, trains CLIP on them, then the
system through that CLIP, and writes a page, results.html. The same command continues what was
stopped. Each training is one command of its own, which is shown, and can be run by hand.

  --system galip                galip (the default), df_gan, souza or stylegan_t
  --perception RUN              a CLIP that was trained before, instead of one on these pictures
  --perception clip_b32         OpenAI's, fetched once: the better choice for few pictures
  --dry-run                     says what would be run, and stops
  --config.KEY=VALUE            a setting of the system's training of your own; it wins

DIR holds a.jpg beside a.txt, one caption a line, or what else `config.data.source=folder` reads;
with folders train/ and val/ in it, scores are of pictures that were not trained on.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from etils import epath

from jaxt2i import places
from jaxt2i.config import ConfigError
from jaxt2i.evaluation import chain
from jaxt2i.run import log, suited, trouble
from jaxt2i.run import open as runs

CHOSEN = "chosen.json"


def arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command line, and settings of one's own."""
    p = argparse.ArgumentParser(
        prog="python -m jaxt2i.from_folder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("folder", metavar="DIR", type=Path, help="pictures with captions")
    p.add_argument("--to", type=epath.Path, required=True, metavar="OUT", help="for both runs")
    p.add_argument("--system", default="galip", choices=suited.SYSTEMS)
    p.add_argument("--perception", default="", metavar="RUN|NAME", help="instead of a new CLIP")
    p.add_argument("--dry-run", action="store_true", help="say what would be run, and stop")
    args, rest = p.parse_known_args(argv)
    if strange := [a for a in rest if not a.startswith("--config.") or "=" not in a]:
        p.error(f"unrecognized arguments: {' '.join(strange)}; settings are --config.KEY=VALUE")
    return args, rest


def has_accelerator() -> bool:
    """Whether JAX computes on something other than the CPU, asked in a process of its own: the
    trainings need the device for themselves.
    """
    code = "import jax; print(jax.default_backend())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return out.stdout.strip() not in ("", "cpu")


def planned(
    args: argparse.Namespace, own: Sequence[str], accelerator: bool
) -> tuple[suited.Seen, list[chain.Stage]]:
    """(what the folder holds, the trainings).

    Raises:
      ConfigError, DataError: for what cannot be trained.
    """
    out = places.of(args.to, "--to")
    path, clip = str(args.folder.absolute()), out / "clip"
    fetched = args.perception in suited.FETCHED
    if (
        args.perception
        and not fetched
        and not (epath.Path(args.perception) / "config.json").is_file()
    ):
        names = ", ".join(suited.FETCHED)
        raise ConfigError(f"--perception {args.perception}: neither a run of CLIP nor {names}")
    first = out / args.system if args.perception else clip
    seen = suited.look(path, first)
    size, data = suited.side(seen, accelerator), suited.data_choices(seen, path, accelerator)
    perception = args.perception or str(clip)
    wanted = [] if args.perception else [("clip", clip, suited.clip_choices(seen))]
    system = suited.system_choices(seen, args.system, perception)
    wanted.append((args.system, out / args.system, system))
    stages = []
    for name, workdir, choices in wanted:
        choices = [*data, *choices]
        told = suited.command(name, size, choices, workdir)
        if name == args.system:
            told[-2:-2] = own
        command = ("python", "-m", "jaxt2i.train", *told)
        stages.append(chain.Stage(name, command, workdir, tuple(choices)))
    return seen, stages


def say(seen: suited.Seen, stages: Sequence[chain.Stage], folder: Path) -> None:
    """What was seen, and what was chosen."""
    log.say(
        f"{folder}: {seen.pictures:,} pictures with {seen.captions:.1f} captions each, "
        f"{seen.held_out:,} more held out; {seen.words:,} different words",
        *(f"note: {note}" for note in suited.notes(seen)),
    )
    for stage in stages:
        log.say(f"\n{stage.name}:", *(f"  {c.argument}  ({c.why})" for c in stage.choices))
        log.say(f"  {shlex.join(stage.command)}")


def share_reports(first: epath.Path, workdir: epath.Path) -> None:
    """Gives a training what is known of the files, which it would decode all again to know."""
    places.make_folder(workdir)
    for report in places.matching(first, "data_report*.json"):
        if not (workdir / report.name).exists():
            places.copy(report, workdir / report.name)


def main(argv: Sequence[str], run: Callable[..., int] = subprocess.call) -> None:
    """Looks, chooses, trains, and writes the page."""
    args, own = arguments(argv)
    if not args.folder.is_dir():
        raise ConfigError(f"{args.folder}: no such folder; give a folder of pictures with captions")
    seen, stages = planned(args, own, has_accelerator())
    say(seen, stages, args.folder)
    if args.dry_run:
        return
    out = places.of(args.to, "--to")
    choices = {stage.name: stage.choices for stage in stages}
    places.write_whole(out / CHOSEN, suited.kept(seen, choices))
    for stage in stages:
        log.say(f"\n{stage.name}:")
        share_reports(stages[0].workdir, stage.workdir)
        if code := run([sys.executable, *stage.command[1:]]):
            raise ConfigError(f"{stage.name} ended with exit status {code}; its last lines say why")
    page = out / chain.PAGE
    chain.write(page, f"{args.system} on {args.folder.name}", seen, stages)
    drawn = stages[-1].workdir
    log.say(
        f"\n{page}: the pictures and scores",
        f"python -m jaxt2i.sample --workdir {drawn} --prompts ...",
        f"python -m jaxt2i.studio --workdir {drawn}",
    )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (*runs.USER_ERRORS, *trouble.ERRORS) as error:
        log.fail(trouble.line(error))
