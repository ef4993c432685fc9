"""One epoch over WebDataset shards that are shown as directories: ``training_loop.py DIRECTORY``.

The files of one sample share a name up to the first dot: ``000017.jpg`` and ``000017.cls``. Shards
come in random order, the samples of one in the order of their names; prints what went by.
"""

import os
import random
import sys
from collections.abc import Iterator
from itertools import groupby


def samples(directory: str) -> Iterator[dict[str, bytes]]:
    """Yield the samples below a directory: the bytes of their files by extension."""
    shards = [entry.path for entry in os.scandir(directory) if entry.is_dir()]
    random.shuffle(shards)
    for shard in shards:
        names = sorted(os.listdir(shard))
        for key, files in groupby(names, lambda name: name.split(".", 1)[0]):
            sample = {"__key__": os.fsencode(key)}
            for name in files:
                with open(os.path.join(shard, name), "rb") as file:
                    sample[name[len(key) + 1 :]] = file.read()
            yield sample


def main(directory: str) -> None:
    count = size = 0
    labels: dict[bytes, int] = {}
    for sample in samples(directory):
        # Here the picture would be decoded, and the model be told of picture and label.
        count += 1
        size += sum(map(len, sample.values())) - len(sample["__key__"])
        labels[sample["cls"]] = labels.get(sample["cls"], 0) + 1
    print(f"{count} samples of {len(labels)} classes, {size} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
