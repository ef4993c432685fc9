"""One epoch over WebDataset shards mounted as directories: ``training_loop.py DIRECTORY``.

The files of one sample share a name up to the first dot: ``000017.jpg`` and ``000017.cls``. The
loop takes shards in random order and the samples of a shard in the order of their names. Prints the
number of samples, classes and bytes.
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
        # Decode the picture and train the model here.
        count += 1
        size += sum(map(len, sample.values())) - len(sample["__key__"])
        labels[sample["cls"]] = labels.get(sample["cls"], 0) + 1
    print(f"{count} samples of {len(labels)} classes, {size} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
