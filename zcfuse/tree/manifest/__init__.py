"""Trees described in a file: TOML by hand, JSON lines by a program.

`load_manifest` reads and checks one and returns its directory. A few columns of numbers hold a
million nodes; entries are created on demand.
"""

from zcfuse.tree.manifest._directory import Entries, ManifestDir, ManifestFile
from zcfuse.tree.manifest._errors import ManifestError
from zcfuse.tree.manifest._load import Progress, load_manifest

__all__ = [
    "Entries",
    "ManifestDir",
    "ManifestError",
    "ManifestFile",
    "Progress",
    "load_manifest",
]
