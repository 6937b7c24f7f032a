"""TLS to a checked address still verifies the name that was asked for."""

import ssl
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipelit.net.egress import EgressPolicy
from pipelit.net.http import HttpClient, HttpError, HttpRequest


class Loopback:
    """Resolves every name to 127.0.0.1."""

    async def resolve(self, host):
        await trio.lowlevel.checkpoint()
        return (ip_address("127.0.0.1"),)


def self_signed(tmp_path, name):
    """Write a key and a certificate for *name*; return the two paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_path, certificate_path = tmp_path / "key.pem", tmp_path / "cert.pem"
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return key_path, certificate_path


async def answer(stream):
    try:
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await stream.aclose()
    except trio.BrokenResourceError:
        pass  # the client refused the certificate


async def test_the_certificate_must_name_the_host_of_the_url(tmp_path):
    """The connection goes to an address, the certificate is checked against the name."""
    key, certificate = self_signed(tmp_path, "good.example")
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate, key)
    trusted = ssl.create_default_context(cafile=certificate)
    client = HttpClient(EgressPolicy(), "provider", resolver=Loopback(), ssl_context=trusted)

    async with trio.open_nursery() as nursery:
        serving = partial(trio.serve_ssl_over_tcp, answer, 0, server_side, host="127.0.0.1")
        listeners = await nursery.start(serving)
        port = listeners[0].transport_listener.socket.getsockname()[1]

        response = await client.request(
            HttpRequest(method="GET", url=f"https://good.example:{port}/")
        )
        with pytest.raises(HttpError) as caught:
            await client.request(HttpRequest(method="GET", url=f"https://bad.example:{port}/"))
        await client.aclose()
        nursery.cancel_scope.cancel()

    assert response.body == b"ok"
    assert caught.value.code == "ConnectError"
    assert "certificate" in str(caught.value)
