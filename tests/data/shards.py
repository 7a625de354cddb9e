"""What img2dataset writes, made on the spot."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.parquet

from tests.data.builders.pictures import jpeg

SIZE = (40, 32)


def row(shard: int, i: int, **kw) -> dict:
    """The metadata of an example; its picture is its number's."""
    key = f"{shard:05d}{i:04d}"
    return {
        "url": f"http://example.org/{key}.jpg",
        "caption": f"picture {i} of file {shard}",
        "similarity": 0.2 + 0.01 * i,
        "LANGUAGE": "de" if i % 4 == 3 else "en",
        "key": key,
        "status": "success",
        "error_message": None,
        "width": SIZE[0],
        "height": SIZE[1],
        **kw,
    }


def picture(entry: dict) -> bytes:
    """Its JPEG file."""
    return jpeg(entry["width"], entry["height"], int(entry["key"]))


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a member."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_parquet(file: Path, rows: list[dict]) -> None:
    """All rows, those that failed among them."""
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


def write_tar(file: Path, rows: list[dict], parquet: bool = True, without=()) -> None:
    """A webdataset file; members in the order of completion, not of their keys.

    Args:
      file: to write.
      rows: of `row`.
      parquet: write the parquet file beside it too.
      without: (key, suffix) of members to leave out.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    good = [entry for entry in rows if entry["status"] == "success"]
    with tarfile.open(file, "w") as archive:
        for entry in good[1::2] + good[::2]:
            texts = {"txt": entry["caption"].encode(), "json": json.dumps(entry).encode()}
            for suffix, content in {"jpg": picture(entry), **texts}.items():
                if (entry["key"], suffix) not in without:
                    add(archive, f"{entry['key']}.{suffix}", content)
    if parquet:
        write_parquet(file.with_suffix(".parquet"), rows)


def write_tfrecord(file: Path, rows: list[dict], parquet: bool = True) -> None:
    """The same as TFRecord."""
    import tensorflow as tf

    from tests.data.sources.test_tfrecords import example

    file.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for entry in rows:
            if entry["status"] != "success":
                continue
            extra = {
                name: [b""]
                if value is None
                else [value.encode() if isinstance(value, str) else value]
                for name, value in entry.items()
                if name != "key"
            }
            fixed = {
                "key": [entry["key"].encode()],
                "jpg": [picture(entry)],
                "txt": [entry["caption"].encode()],
            }
            writer.write(example(**fixed, **extra))
    if parquet:
        write_parquet(file.with_suffix(".parquet"), rows)


def collection(root: Path, files: int = 4, count: int = 6, kind: str = "tar", **kw) -> Path:
    """A folder of files with `count` examples each; one more of each failed to download."""
    write = {"tar": write_tar, "tfrecord": write_tfrecord}[kind]
    for shard in range(files):
        rows = [row(shard, i) for i in range(count)]
        rows.append(row(shard, count, status="failed_to_download", width=None, height=None))
        write(root / f"{shard:05d}.{kind}", rows, **kw)
    return root
