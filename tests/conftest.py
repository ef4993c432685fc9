"""Loads the shared support; its fixtures and hooks are in ``tests/support/_plugin.py``."""

import pytest

pytest.register_assert_rewrite("tests.support")

pytest_plugins = ["tests.support._plugin"]
