"""docs/monitoring.md: its table names exactly the existing metrics."""

import os
import re

from prometheus_client.parser import text_string_to_metric_families

from tests.admin.test_metrics import document
from tests.support._user import CHECKOUT
from zcfuse.admin.metrics._collector import exposition

SUFFIXES = {"counter": "_total", "info": "_info"}


def test_the_page_names_every_metric_with_its_labels_and_no_other():
    with open(os.path.join(CHECKOUT, "docs", "monitoring.md")) as page:
        rows = re.findall(r"^\| (`zcfuse_.*?) \| (.*?) \|", page.read(), re.MULTILINE)
    told = {
        name: set(re.findall(r"`(\w+)`", labels))
        for names, labels in rows
        for name in re.findall(r"`(zcfuse_\w+)`", names)
    }
    found = {}
    for family in text_string_to_metric_families(exposition(document()).decode()):
        labels = {label for sample in family.samples for label in sample.labels}
        name = family.name if family.name in told else family.name + SUFFIXES[family.type]
        found[name] = labels - {"mountpoint", "le"}
    empty = {name for name, labels in found.items() if not labels}
    assert found.keys() == told.keys()
    assert {name: labels for name, labels in told.items() if name not in empty} == {
        name: labels for name, labels in found.items() if name not in empty
    }
