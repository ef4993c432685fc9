"""Trees that are written down in a file: TOML by hand, JSON lines by a program.

`load_manifest` reads one, checks all of it and returns the directory that it describes. A million
nodes are kept as a few columns of numbers; entries are made of them when somebody asks.
"""

from zcfuse.tree.manifest._directory import ManifestDir
from zcfuse.tree.manifest._errors import ManifestError
from zcfuse.tree.manifest._load import Progress, load_manifest

__all__ = ["ManifestDir", "ManifestError", "Progress", "load_manifest"]
