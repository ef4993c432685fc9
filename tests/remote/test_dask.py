"""Workers of a Dask cluster share a mount of a server, and report what it fetched."""

import os
import subprocess
import sys

from tests.remote.conftest import LARGE, SMALL
from tests.remote.server import WebServer
from tests.support import abort, find_mount, requires
from tests.support._kernel import detach
from tests.support._user import CHECKOUT

pytestmark = requires("mounting", "distributed")

_CLUSTER = """
import sys, time
from distributed import Client, LocalCluster
from zcfuse.dask import MountPlugin

def read(name):
    with open(f"{sys.argv[2]}/{name}", "rb") as file:
        return len(file.read())

def main():
    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
        plugin = MountPlugin(sys.argv[1], sys.argv[2], *sys.argv[4:])
        client.register_plugin(plugin)
        workers = list(client.scheduler_info()["workers"])
        for name in ("large", "small"):
            reads = [client.submit(read, name, workers=[one], pure=False) for one in workers]
            print(*client.gather(reads))
        # The figures travel with a heartbeat.
        while True:
            figures = [one["metrics"].get(plugin.name, {}) for one in
                       client.scheduler_info()["workers"].values()]
            if all(one.get("fetched_bytes", 0) >= int(sys.argv[3]) for one in figures):
                break
            time.sleep(0.1)
        print(*sorted({one["daemon"] for one in figures}))
        print(*sorted({one["fetched_bytes"] for one in figures}))

if __name__ == "__main__":
    main()
"""


def test_workers_fetch_each_byte_once_and_report_it(web: WebServer, cache: str, tmp_path):
    mountpoint = tmp_path / "mnt"
    program = tmp_path / "cluster.py"
    program.write_text(_CLUSTER)
    options = [f"--cache-dir={cache}", "--cache-floor=0"]
    whole = len(LARGE) + len(SMALL)
    try:
        result = subprocess.run(
            [sys.executable, str(program), web.url, str(mountpoint), str(whole), *options],
            capture_output=True,
            text=True,
            timeout=100,
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": CHECKOUT},
        )
    finally:
        left = find_mount(str(mountpoint))
        if left is not None:
            abort(left)
            detach(str(mountpoint))
    assert result.returncode == 0, result.stderr
    assert left is None
    large, small, daemons, fetched = result.stdout.splitlines()
    assert large.split() == [str(len(LARGE))] * 2
    assert small.split() == [str(len(SMALL))] * 2
    assert len(daemons.split()) == 1
    assert fetched == str(whole)
    assert web.fetched == whole
