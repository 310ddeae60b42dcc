"""TLS on both sides: contexts out of what the snapshot says of certificates, keys and authorities."""

from __future__ import annotations

import ssl
from typing import Final

from router.core.spec import ClientTlsSpec, ServerTlsSpec

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_DEMANDS: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325 §4.2)."""


def server_context(spec: ServerTlsSpec) -> ssl.SSLContext:
    """A listener's context, choosing the certificate by the name the client asks for. Raises OSError, ssl.SSLError."""
    contexts = [_server(spec, one.certificate, one.key) for one in spec.certificates]
    by_name: dict[str, ssl.SSLContext] = {}
    for certificate, context in zip(spec.certificates, contexts, strict=True):
        for name in certificate.names:
            by_name.setdefault(name, context)

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name:
            lower = name.lower().rstrip(".")
            found = by_name.get(lower) or by_name.get("*." + lower.partition(".")[2])
            if found is not None:
                connection.context = found

    first = contexts[0]
    if len(contexts) > 1:
        first.sni_callback = choose
    return first


def _server(spec: ServerTlsSpec, certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[spec.min_version]
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key, password="")  # without one OpenSSL would ask at the terminal
    context.verify_mode = _DEMANDS[spec.client_certificate]
    if spec.client_ca:
        context.load_verify_locations(spec.client_ca)
    return context


def client_context(spec: ClientTlsSpec) -> ssl.SSLContext:
    """The context for an endpoint: verifies unless told not to. Raises OSError, ssl.SSLError."""
    context = ssl.create_default_context(cafile=spec.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if not spec.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if spec.certificate:
        context.load_cert_chain(spec.certificate, spec.key or None, password="")
    return context
