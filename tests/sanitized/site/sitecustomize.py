"""Has the daemon load the data path that ZCFUSE_NATIVE names, in place of the installed one."""

import importlib.util
import os
import sys

MODULE = "zcfuse.datapath._native"


class Finder:
    """Finds one module."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != MODULE:
            return None
        return importlib.util.spec_from_file_location(name, os.environ["ZCFUSE_NATIVE"])


# Before the finders of an editable installation.
sys.meta_path.insert(0, Finder)
