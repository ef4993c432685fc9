"""A few thousand mutants of archives; `make fuzz` examines mutants for minutes."""

import subprocess
import sys

from tests.support._user import CHECKOUT

MUTANTS = 1500
PROGRAM = """
import sys
from tests.tree.archive import fuzz
done, findings = fuzz.run(int(sys.argv[1]), lambda done: done < int(sys.argv[2]))
sys.exit(len(findings))
"""


def test_each_mutant_of_an_archive_is_an_index_in_bounds_or_one_line(tmp_path):
    # Another process: the limits must not meet the test's.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "1", str(MUTANTS)],
        capture_output=True,
        timeout=300,
        check=False,
        cwd=CHECKOUT,
        text=True,
    )
    assert done.returncode == 0, done.stderr
