"""TensorBoard's event files, without TensorFlow: its import outlasts many a run's first steps.

A file is a series of TFRecords (tensorflow/core/lib/io/record_writer.h), each an Event message.
"""

import io
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import google_crc32c
import numpy as np


def masked(content: bytes) -> bytes:
    """The checksum behind each part of a record."""
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


class Events:
    """One event file.

    Args:
      folder: where it is made; tensorboard reads all files there as one run.

    Raises:
      ImportError: without tensorboard, which brings the messages.
    """

    def __init__(self, folder: Path):
        from tensorboard.compat.proto import event_pb2, summary_pb2

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.v2"
        self._file = (folder / name).open("ab")
        self._write(file_version="brain.Event:2")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, by their tags."""
        value = self._summary.Value
        self._write(step, [value(tag=tag, simple_value=x) for tag, x in values.items()])

    def images(self, step: int, name: str, images: np.ndarray) -> None:
        """Pictures of a step, as tags NAME/0, NAME/1, ...

        Args:
          step: the step.
          name: what they are.
          images: uint8 [N, H, W, 3].
        """
        values = []
        for i, image in enumerate(images):
            height, width, channels = image.shape
            shown = self._summary.Image(
                height=height, width=width, colorspace=channels, encoded_image_string=png(image)
            )
            values.append(self._summary.Value(tag=f"{name}/{i}", image=shown))
        self._write(step, values)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, step: int = 0, values: list = (), **fields) -> None:
        if values:
            fields["summary"] = self._summary(value=values)
        content = self._event(wall_time=time.time(), step=step, **fields).SerializeToString()
        length = struct.pack("<Q", len(content))
        self._file.write(length + masked(length) + content + masked(content))
        self._file.flush()


def png(image: np.ndarray) -> bytes:
    """A picture, uint8 [H, W, 3], as the bytes of a PNG file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()
