"""Servers with a certificate that a test made: whom the plain connections and the drivers trust."""

import datetime
import ipaddress
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.remote.conftest import LARGE, SMALL, Ask
from tests.remote.server import WebServer
from tests.remote.test_ranges import LARGE_OBJECT
from tests.support import skip_unless
from zcfuse.remote import _connections
from zcfuse.remote._cache import PIECE_BYTES, key_of
from zcfuse.remote._connections import Connections, UnreachedError
from zcfuse.remote._fetchers import RemoteError
from zcfuse.remote._messages import Ensure, Ensured, Info, Look, Looked, Setup

# What names a file of certificates to trust, for all programs or for clients of S3.
_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate of 127.0.0.1, signed by itself, and its key; nobody trusts it yet."""
    skip_unless("moto")  # which needs cryptography
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def encrypted(certificate: Path) -> Iterator[WebServer]:
    """Serves "large" and "small" with that certificate."""
    skip_unless("fsspec", "aiohttp")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = WebServer({"large": LARGE, "small": SMALL}, context)
    yield server
    server.close()


@pytest.fixture
def reads(
    encrypted: WebServer, workers: Callable[[Setup], Ask], tmp_path: Path
) -> Callable[..., dict[str, int]]:
    """Reads a piece of "large": ``reads(url, options, info, deadline)`` says why the driver did."""

    def read(
        url: str, options: dict[str, object], info: Info | None = None, deadline: float = 30
    ) -> dict[str, int]:
        ask = workers(Setup(url, "server", options, str(tmp_path), "1000000000", "0", 1))
        if info is None:
            looked = ask(Look(1, "", b"large", deadline))
            assert isinstance(looked, Looked)
            info = looked.info
        assert info is not None
        key = key_of("server", info.path, info.version)
        done = ask(Ensure(2, key, info, 0, PIECE_BYTES, True, deadline))
        assert isinstance(done, Ensured)
        assert done.good == [(0, PIECE_BYTES)]
        data = tmp_path / key[:2] / f"{key}.data"
        assert data.read_bytes()[:PIECE_BYTES] == LARGE[:PIECE_BYTES]
        return done.by_driver

    return read


Reads = Callable[..., dict[str, int]]


def test_a_certificate_of_the_environment_is_trusted_by_plain_connections(
    encrypted: WebServer, reads: Reads, certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert reads(encrypted.url, {}) == {}
    assert encrypted.ranges == [("large", 0, PIECE_BYTES - 1)]


def test_a_certificate_that_nobody_trusts_gives_no_bytes(encrypted: WebServer, reads: Reads):
    with pytest.raises(RemoteError) as failure:
        reads(encrypted.url, {}, deadline=1)
    assert failure.value.unreachable
    assert encrypted.requests == {}


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_a_certificate_for_clients_of_s3_is_trusted_by_plain_connections(
    encrypted: WebServer,
    reads: Reads,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
):
    skip_unless("s3fs")
    monkeypatch.setenv(variable, str(certificate))
    options = {"endpoint_url": encrypted.endpoint, "key": "k", "secret": "s"}
    assert reads("s3://d", options, LARGE_OBJECT) == {}
    assert encrypted.ranges == [("large", 0, PIECE_BYTES - 1)]


def test_a_driver_that_is_told_to_verify_nothing_reads_by_itself(
    encrypted: WebServer, reads: Reads
):
    skip_unless("s3fs")
    options = {
        "endpoint_url": encrypted.endpoint,
        "key": "k",
        "secret": "s",
        "client_kwargs": {"verify": False},
    }
    assert reads("s3://d", options, LARGE_OBJECT) == {"options of the driver": 1}


@pytest.mark.parametrize(
    ("host", "is_trusted", "reason"),
    [
        ("127.0.0.1", True, ""),
        ("127.0.0.1", False, "certificate not verified"),
        ("localhost", True, "certificate not verified"),
    ],
)
def test_a_plain_connection_verifies_the_certificate_and_its_host(
    encrypted: WebServer,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    is_trusted: bool,
    reason: str,
):
    monkeypatch.setattr(_connections, "_CONNECT_S", 30.0)  # of a busy machine
    connections = Connections()
    connections.authorities = str(certificate) if is_trusted else None
    url = urlsplit(encrypted.url.replace("127.0.0.1", host))
    if reason:
        with pytest.raises(UnreachedError, match=reason):
            connections.take(url, time.monotonic() + 30)
    else:
        connection, _ = connections.take(url, time.monotonic() + 30)
        connection.close()
