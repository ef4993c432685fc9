"""One epoch of a PyTorch DataLoader over small files: ``dataloader_files.py DIRECTORY [WORKERS]``.

    zcfuse mount /data/train /mnt/train
    python dataloader_files.py /mnt/train 4

Every file is a sample, and its directory is its class. If the tree does not change while it is
mounted, ``zcfuse mount --immutable`` removes all requests from the second epoch. Prints the number
of samples, their bytes and a checksum.
"""

import os
import sys
import zlib

try:
    import torch
    from torch.nn.utils.rnn import pad_sequence
    from torch.utils.data import DataLoader
except ImportError as error:
    sys.exit(f"dataloader_files.py: {error}: pip install torch numpy")

SEED = 17
Sample = tuple[torch.Tensor, int]


class Files:
    """The files below a directory, as (bytes, class)."""

    def __init__(self, directory: str) -> None:
        self.paths = sorted(
            os.path.join(where, name) for where, _, names in os.walk(directory) for name in names
        )
        self.classes = sorted({os.path.dirname(path) for path in self.paths})
        self._class_of = {path: number for number, path in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        path = self.paths[index]
        # Unbuffered, into memory of the right size: only the kernel copies.
        with open(path, "rb", buffering=0) as file:
            data = bytearray(os.fstat(file.fileno()).st_size)
            file.readinto(data)
        # Decode the picture here. frombuffer refuses an empty buffer.
        kind = torch.uint8
        sample = torch.frombuffer(data, dtype=kind) if data else torch.empty(0, dtype=kind)
        return sample, self._class_of[os.path.dirname(path)]


def collate(samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a batch: bytes padded to the longest sample, the lengths, the classes."""
    data = [sample for sample, _ in samples]
    lengths = torch.tensor([len(sample) for sample in data])
    return pad_sequence(data, batch_first=True), lengths, torch.tensor([at for _, at in samples])


def main(directory: str, workers: int) -> None:
    files = Files(directory)
    if not files.paths:
        sys.exit(f"dataloader_files.py: {directory}: no files")
    order = torch.Generator().manual_seed(SEED)
    loader = DataLoader(
        files, 32, shuffle=True, num_workers=workers, collate_fn=collate, generator=order
    )
    count = size = crc = 0
    for data, lengths, classes in loader:
        # Train the model here.
        count += len(classes)
        size += int(lengths.sum())
        crc = zlib.crc32(classes.numpy(), zlib.crc32(data.numpy(), crc))
    print(f"{count} samples of {len(files.classes)} classes, {size} bytes, CRC-32 {crc:08x}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or not all(map(str.isdigit, sys.argv[2:])):
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 2)
