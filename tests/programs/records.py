"""The results of each program, one JSON object per line, for a table.

The environment variable ``ZCFUSE_PROOF_RECORDS`` names the file; without it nothing is written.
Records are appended, so several runs can share one table.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from collections.abc import Callable
from typing import Final

from tests.programs.frozen import KernelProof
from tests.programs.proof import Proof

VARIABLE: Final = "ZCFUSE_PROOF_RECORDS"
_DEADLINE_S: Final = 20
# The first word in a program's output that looks like a version: "nginx/1.22.1", "v7.0.15".
_VERSION: Final = re.compile(r"\d+(?:\.\d+)+[-\w.+~]*")

Record = Callable[[str, str, str, Proof | KernelProof], None]


@functools.cache
def version(*argv: str) -> str:
    """The version that a program reports: ``version("nginx", "-v")``."""
    result = subprocess.run(argv, capture_output=True, timeout=_DEADLINE_S, check=False)
    found = _VERSION.search((result.stdout + result.stderr).decode(errors="replace"))
    return found[0].rstrip(".,") if found else "unknown"


def write_record(
    test: str, program: str, program_version: str, compared: str, proof: Proof | KernelProof
) -> None:
    """Add a line for `test`: `compared` describes the compared result."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    line = {
        "test": test,
        "program": program,
        "version": program_version,
        "compared": compared,
        "user": "root" if proof.daemon.user is None and os.geteuid() == 0 else "ordinary",
        **proof.numbers(),
    }
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
