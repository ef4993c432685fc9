"""The library that tests of pushes preload into a daemon."""

from __future__ import annotations

import os

import pytest

from tests.integration.conftest import command


@pytest.fixture(scope="package")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library that leaves out a rule of a push, and delays replies."""
    library = str(tmp_path_factory.mktemp("ablation") / "ablation.so")
    source = os.path.join(os.path.dirname(__file__), "ablation.c")
    command("cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl")
    return library
