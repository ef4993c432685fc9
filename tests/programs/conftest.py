"""Fixtures for the tests with real programs; see ``served``."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

pytest.register_assert_rewrite(
    "tests.programs.frozen", "tests.programs.proof", "tests.programs.served"
)

from tests.programs.frozen import KernelProof  # noqa: E402
from tests.programs.proof import Proof  # noqa: E402
from tests.programs.records import Record, write_record  # noqa: E402
from tests.programs.served import Fill, Served  # noqa: E402
from tests.support import Mounter, OrdinaryUser  # noqa: E402

ServedToUser = Callable[..., Served]


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Records a test's result: ``record(program, version, compared, proof)`` (see `records`)."""

    def keep(program: str, version: str, compared: str, proof: Proof | KernelProof) -> None:
        write_record(request.node.nodeid, program, version, compared, proof)

    return keep


@pytest.fixture
def served_to_user(ordinary_user: OrdinaryUser, mounted: Mounter) -> ServedToUser:
    """Mounts as an ordinary user: ``served_to_user(fill)``; by splice, or by another path."""

    def serve(fill: Fill, path: str = "splice", *options: str) -> Served:
        source, mountpoint = (ordinary_user.directory(name) for name in ("source", "mnt"))
        fill(source)
        for directory, names, files in os.walk(source):
            for name in [*names, *files]:
                os.lchown(os.path.join(directory, name), ordinary_user.uid, ordinary_user.gid)
        chosen = ["--path", path, *options]
        daemon = mounted(*chosen, source=source, mountpoint=mountpoint, user=ordinary_user)
        return Served(path, daemon)

    return serve
