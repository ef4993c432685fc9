"""An Arrow file by ``pyarrow.memory_map``: ``arrow_map.py FILE``.

Prints the number of rows, the sums of the numeric columns, and the bytes that Arrow allocated for
the table: zero if its columns lie in the mapping.
"""

import sys

import pyarrow
import pyarrow.compute
import pyarrow.ipc


def main(path: str) -> None:
    with pyarrow.memory_map(path) as source:
        table = pyarrow.ipc.open_file(source).read_all()
        allocated = pyarrow.total_allocated_bytes()
        sums = [
            pyarrow.compute.sum(pyarrow.compute.binary_length(column)).as_py()
            if pyarrow.types.is_string(column.type)
            else pyarrow.compute.sum(column).as_py()
            for column in table.itercolumns()
        ]
        print(f"{table.num_rows} rows, {table.nbytes} bytes, {allocated} allocated, sums {sums}")


if __name__ == "__main__":
    main(sys.argv[1])
