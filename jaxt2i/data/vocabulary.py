"""python -m jaxt2i.prepare vocabulary --from DIR --to FILE

Learns a vocabulary from the training captions of a folder, of records or of a web collection, for
`--config.data.tokenizer=FILE`: words by default, as the encoders of AttnGAN's family read them, or
byte pairs with --pieces, as CLIP reads them. A FILE that ends in .pickle is a captions.pickle as
the official repositories read it; any other is JSON, of words if its name ends in words.json.
Without --from the captions are those of a procedural corpus.
"""

import argparse
import posixpath
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jaxt2i import places
from jaxt2i.configs.common import base
from jaxt2i.data import sources, words
from jaxt2i.data.readable import readable
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import files, records
from jaxt2i.data.tokenize import BpeTokenizer

# Pictures whose captions are read, where a source has no end.
READ = 100_000
# What the tools of a collection leave beside or in place of its pictures.
PACKED = (".tar", ".tfrecord")


def kind_of(path: str) -> str:
    """The source that reads what lies in a folder, as config.data.source names it.

    Raises:
      DataError: for no folder.
    """
    if not files.is_folder(path):
        raise DataError(f"--from {path}: no such folder")
    names = list(files.walk(path))
    if any(posixpath.basename(name) == records.INFO for name in names):
        return "records"
    return "webdataset" if any(name.endswith(PACKED) for name in names) else "folder"


def captions_of(data, split: str, most: int) -> list[str]:
    """The captions of the first pictures of a split, at most of so many."""
    source = sources.make_source(data, (16, 16), split)
    count = min(source.size or most, most)
    found = readable(range(count), source.captions, "the vocabulary's captions")
    return [text for _, texts in found for text in texts]


def make(args: argparse.Namespace) -> str:
    """Writes the vocabulary; returns a line that says what it is.

    Raises:
      DataError: for captions that cannot be read, and a name that says another kind of vocabulary.
    """
    target, data = places.of(args.to, "--to"), base().data
    if args.source:
        data.update(source=kind_of(args.source), path=str(args.source), cache_mb=0.0)
        data.languages = tuple(filter(None, args.languages.split(",")))
    else:
        data.update(source="synthetic", corpus=args.corpus)
    is_words = target.suffix in words.PICKLES or target.name.endswith("words.json")
    if args.pieces == is_words or (args.pieces and target.suffix != ".json"):
        raise DataError(
            f"--to {target}: vocabularies of words are called NAME.pickle or NAME-words.json, "
            "those of --pieces NAME.json, by which config.data.tokenizer tells them apart"
        )
    captions = captions_of(data, "train", args.pictures)
    if not captions:
        raise DataError(f"{args.source}: no captions to learn from")
    with tempfile.TemporaryDirectory(prefix="jaxt2i-") as scratch:
        made = Path(scratch) / target.name
        if args.pieces:
            BpeTokenizer.train(captions, args.size or 2048, made)
            size = BpeTokenizer(made, 32).vocab_size
        else:
            found = words.WordTokenizer.build(captions, 32, least=args.least, most=args.size)
            size = found.vocab_size
            if target.suffix in words.PICKLES:
                test = captions_of(data, "test", args.pictures)
                words.write_captions_pickle(made, found, captions, test)
            else:
                found.save(made)
        places.copy(made, target)
    return (
        f"{size} ids from {len(captions):,} captions in {target}; use it with "
        f"--config.data.tokenizer={target} and a config.model that has room for {size}"
    )


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line behind `prepare vocabulary`."""
    p = argparse.ArgumentParser(
        prog="python -m jaxt2i.prepare vocabulary",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--from", dest="source", metavar="DIR", help="folder, records or collection")
    p.add_argument("--corpus", default="mixed", help="procedural corpus, without --from")
    p.add_argument("--languages", default="", help="of captions, such as en,de; default any")
    p.add_argument("--to", required=True, metavar="FILE", help="what to write")
    p.add_argument("--pieces", action="store_true", help="byte pairs instead of words")
    p.add_argument("--size", type=int, default=0, help="ids at most; default all words, 2048 pairs")
    p.add_argument("--least", type=int, default=1, help="how often a word must occur; default 1")
    p.add_argument("--pictures", type=int, default=READ, help="pictures whose captions are read")
    args = p.parse_args(argv)
    if args.size < 0 or args.least < 1 or args.pictures < 1:
        p.error("--size is 0 or more, --least and --pictures are 1 or more")
    return args
