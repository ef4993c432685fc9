"""Makes the tables that the tests read: ``make_tables.py DIRECTORY``.

``table.arrow`` is an Arrow file, and ``parquet/`` the same rows in several Parquet files.
"""

import os
import sys

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

ROWS = 600_000
FILES = 6
KINDS = 7


def main(directory: str) -> None:
    numbers = range(ROWS)
    table = pyarrow.table(
        {
            "id": pyarrow.array(numbers, pyarrow.int64()),
            "kind": pyarrow.array([number % KINDS for number in numbers], pyarrow.int32()),
            "value": pyarrow.array([number * number for number in numbers], pyarrow.int64()),
            "name": [f"row {number}" for number in numbers],
        }
    )
    path = os.path.join(directory, "table.arrow")
    with pyarrow.OSFile(path, "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    os.mkdir(os.path.join(directory, "parquet"))
    for number in range(FILES):
        path = os.path.join(directory, "parquet", f"part-{number}.parquet")
        part = table.slice(number * ROWS // FILES, ROWS // FILES)
        pyarrow.parquet.write_table(part, path)


if __name__ == "__main__":
    main(sys.argv[1])
