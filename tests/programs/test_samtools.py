"""samtools over a BAM file in the mount, whole and by its index."""

from __future__ import annotations

import random
import subprocess
from typing import Final

from tests.programs.conftest import ServedToUser
from tests.programs.records import Record, version
from tests.programs.served import FAST, Served, served_mount
from tests.support import requires

pytestmark = requires("mounting", "samtools")

READS: Final = 30_000
READ_BASES: Final = 100
CHROMOSOME_BASES: Final = 1_000_000
REGION: Final = "chr2:400000-420000"
BAM: Final = "{}/reads.bam"
# From a random byte to one of four letters.
BASES: Final = b"ACGT" * 64
QUALITIES: Final = b"#,:F" * 64


def fill(source: str) -> None:
    """Let samtools sort and index reads of an invented genome."""
    bam = f"{source}/reads.bam"
    sort = ["samtools", "sort", "-m", "64M", "-T", f"{source}/sort", "-o", bam, "-"]
    subprocess.run(sort, input=sam(), check=True, timeout=60, capture_output=True)
    subprocess.run(["samtools", "index", bam], check=True, timeout=60, capture_output=True)


def sam() -> bytes:
    rng = random.Random("reads")
    names = ["chr1", "chr2", "chr3"]
    lines = [f"@SQ\tSN:{name}\tLN:{CHROMOSOME_BASES}" for name in names]
    for number in range(READS):
        at = rng.randrange(1, CHROMOSOME_BASES - READ_BASES)
        bases = rng.randbytes(READ_BASES).translate(BASES).decode()
        qualities = rng.randbytes(READ_BASES).translate(QUALITIES).decode()
        flag = rng.choice((0, 16, 1024))
        head = f"read{number}\t{flag}\t{rng.choice(names)}\t{at}\t60\t{READ_BASES}M\t*\t0\t0"
        lines.append(f"{head}\t{bases}\t{qualities}")
    return ("\n".join(lines) + "\n").encode()


served = served_mount(fill, FAST)


def compare(served: Served, record: Record) -> None:
    with served.proof(delivered=served.size("reads.bam")) as proof:
        flags = served.same("samtools", "flagstat", BAM)
        region = served.same("samtools", "view", BAM, REGION)
        served.same("samtools", "quickcheck", BAM)
        served.same("samtools", "idxstats", BAM)
    assert flags.startswith(b"%d + 0 in total" % READS)
    assert 100 < region.count(b"\n") < READS // 20
    record("samtools", version("samtools", "--version"), "flagstat, a region, idxstats", proof)


def test_samtools_finds_the_same_reads_in_the_mount(served: Served, record: Record) -> None:
    compare(served, record)


@requires("ordinary user")
def test_an_ordinary_user_s_samtools_finds_the_same_reads(
    served_to_user: ServedToUser, record: Record
) -> None:
    compare(served_to_user(fill), record)


def test_samtools_reads_a_region_without_the_rest_of_the_file(served: Served) -> None:
    size = served.size("reads.bam")
    with served.proof(delivered=size // 20) as proof:
        served.same("samtools", "view", "-c", BAM, REGION)
    if served.path == "splice":
        assert 0 < proof.served["splice"] < size // 2
