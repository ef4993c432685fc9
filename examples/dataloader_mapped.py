"""A PyTorch DataLoader over one mapped file: ``dataloader_mapped.py FILE RECORD_BYTES [WORKERS]``.

    zcfuse mount /data /mnt/data
    python dataloader_mapped.py /mnt/data/tokens.bin 4096 4

FILE is a sequence of records of RECORD_BYTES bytes each, such as tokens or features. All workers
map it, and all mappings share the page cache's pages; under passthrough these are the backing
file's. Prints the number of records, their bytes and a checksum of one shuffled epoch.
"""

import functools
import os
import sys
import zlib

try:
    import torch
    from torch.utils.data import DataLoader
except ImportError as error:
    sys.exit(f"dataloader_mapped.py: {error}: pip install torch numpy")

SEED = 17


class Records:
    """The records of a file, without an incomplete one at the end."""

    def __init__(self, path: str, size: int) -> None:
        self._path = path
        self._size = size
        self._count = os.path.getsize(path) // size

    @functools.cached_property
    def _records(self) -> torch.Tensor:
        """Map the file in each worker: sending a mapping to another process sends its bytes.

        `shared=False` is a private mapping, which a read-only mount permits.
        """
        whole = self._count * self._size
        data = torch.from_file(self._path, shared=False, size=whole, dtype=torch.uint8)
        return data.view(self._count, self._size)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> torch.Tensor:
        # A view: the worker copies the bytes once, when it assembles its batch.
        return self._records[index]


def main(path: str, size: int, workers: int) -> None:
    try:
        records = Records(path, size)
    except OSError as error:
        sys.exit(f"dataloader_mapped.py: {path}: {error.strerror}")
    if not len(records):
        sys.exit(f"dataloader_mapped.py: {path}: shorter than one record of {size} bytes")
    order = torch.Generator().manual_seed(SEED)
    loader = DataLoader(records, 64, shuffle=True, num_workers=workers, generator=order)
    count = crc = 0
    for batch in loader:
        # Train the model here.
        count += len(batch)
        crc = zlib.crc32(batch.numpy(), crc)
    print(f"{count} records, {count * size} bytes, CRC-32 {crc:08x}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or not all(map(str.isdigit, sys.argv[2:])):
        sys.exit(__doc__)
    if int(sys.argv[2]) == 0:
        sys.exit("dataloader_mapped.py: RECORD_BYTES must be at least 1")
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) == 4 else 2)
