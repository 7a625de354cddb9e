"""ArrayRecord files: records by their number, checksums verified (package array_record).

Each file ends with an index, so nothing needs to be read to know where a record is. `scan` and
`read` are as those of `jaxt2i.data.sources.tfrecords`; the place of a record is (its number, 0).
"""

import numpy as np

from jaxt2i.data.images import CORRUPT, Unreadable
from jaxt2i.data.sources.files import Kept, Shelf


class Files:
    """A shelf of ArrayRecord files, the last few of them open; many threads may read."""

    def __init__(self, shelf: Shelf):
        self.paths = shelf.paths
        self._shelf, self._reader = shelf, Kept(self._opened, shelf.most)

    def _opened(self, file: int):
        from array_record.python.array_record_module import ArrayRecordReader

        name, _stream = self._shelf.local(file)
        try:
            # Nothing is read ahead: the next record is wanted by nobody yet.
            return ArrayRecordReader(name, "readahead_buffer_size:0")
        except RuntimeError as error:
            raise Unreadable(self.paths[file], CORRUPT) from error

    def scan(self, file: int) -> tuple[np.ndarray, bool]:
        """The places of the records of a file: (int64 [n, 2], whether it is whole)."""
        # A file that is cut off has lost its index, and with it all records.
        count = self._reader(file).num_records()
        return np.stack([np.arange(count), np.zeros(count, np.int64)], 1), count > 0

    def read(self, file: int, number: int, _length: int = 0) -> bytes:
        """The bytes of a record.

        Raises:
          Unreadable: when they do not match their checksum.
        """
        try:
            return self._reader(file).read([number])[0]
        except RuntimeError as error:
            raise Unreadable(f"{self.paths[file]}, record {number}", CORRUPT) from error
