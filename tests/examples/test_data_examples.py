"""The examples for data loaders, tables and clusters; each names a missing package in one line.

``tests/programs/heavy`` runs those for data loaders and tables with the packages.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.conftest import DEADLINE_S, Programs
from tests.support import find_mount, requires
from tests.support._user import CHECKOUT

NEEDS = {
    "dataloader_files.py": "torch",
    "dataloader_mapped.py": "torch",
    "parquet_duckdb.py": "duckdb",
    "dask_checksums.py": "distributed",
}


def complaint(name: str, *arguments: str, path: str = "") -> tuple[int, str]:
    """The status of ``examples/NAME`` and its standard error."""
    done = subprocess.run(
        [sys.executable, os.path.join(CHECKOUT, "examples", name), *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(("name", "package"), NEEDS.items())
def test_an_example_without_its_package_is_one_line(
    name: str, package: str, tmp_path: Path
) -> None:
    stand_in = f'raise ImportError("No module named {package!r}")\n'
    (tmp_path / f"{package}.py").write_text(stand_in)
    status, errors = complaint(name, "/", "1", path=str(tmp_path))
    assert status == 1
    assert errors.startswith(f"{name}: No module named '{package}': pip install {package}")
    assert errors.count("\n") == 1


@requires("mounting", "distributed")
def test_a_dask_cluster_reads_2000_files_through_one_mount(
    programs: Programs, source: str, mountpoint: str
) -> None:
    for number in range(2000):
        with open(os.path.join(source, f"{number:04}"), "w") as file:
            file.write(f"{number}\n")
    size = sum(len(f"{number}\n") for number in range(2000))
    first, *workers = programs.run("dask_checksums.py", source, mountpoint).splitlines()
    assert first.startswith(f"2000 files, {size} bytes, checksum ")
    assert [worker.split(":")[0] for worker in workers] == ["worker 0", "worker 1"]
    assert find_mount(mountpoint) is None
