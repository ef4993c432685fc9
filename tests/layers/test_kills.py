"""What a killed daemon leaves is a tree that the changes give in their order.

`make kills` runs the same for long.
"""

import pytest

from tests.layers import kills
from tests.support import requires


@requires("mounting", "root")
@pytest.mark.parametrize("kind", kills.KINDS)
def test_a_daemon_killed_in_the_middle_of_changes_leaves_a_tree_of_their_order(kind: str) -> None:
    assert kills.run(3, (kind,), first=1000) == []
