"""How the packages import each other, and what a mount loads."""

import os
import subprocess
import sys

SCRIPT = os.path.join(os.path.dirname(__file__), "..", "scripts", "imports.py")


def test_packages_import_public_names_only_and_in_one_direction():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_mount_loads_nothing_that_measures():
    code = """
import sys
from zcfuse.cli.mount import mount
from zcfuse.control import run_daemon
print([name for name in sys.modules if name.startswith(("zcfuse.bench", "zcfuse.audit"))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
