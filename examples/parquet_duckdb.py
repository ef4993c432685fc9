"""Query the Parquet files of a directory with DuckDB: ``parquet_duckdb.py DIRECTORY SQL``.

    zcfuse mount /data/events /mnt/events
    python parquet_duckdb.py /mnt/events "SELECT kind, count(*) FROM files GROUP BY ALL"

`files` is one table of all Parquet files below DIRECTORY; its column `filename` names the file of a
row. DuckDB reads the columns that it needs by pread from several threads. Under passthrough they
come from the backing files' page cache. Prints one row per line.
"""

import os
import sys

try:
    import duckdb
except ImportError as error:
    sys.exit(f"parquet_duckdb.py: {error}: pip install duckdb")


def answer(directory: str, question: str) -> list[tuple[object, ...]]:
    """Return the rows of the answer."""
    with duckdb.connect() as database:
        pattern = os.path.join(directory, "**", "*.parquet")
        files = database.read_parquet(pattern, filename=True, union_by_name=True)
        files.create_view("files")
        rows: list[tuple[object, ...]] = database.execute(question).fetchall()
        return rows


def main(directory: str, question: str) -> None:
    try:
        for row in answer(directory, question):
            print(*row, sep="\t")
    except duckdb.Error as error:
        sys.exit(f"parquet_duckdb.py: {str(error).partition(chr(10))[0]}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
