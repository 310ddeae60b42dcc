"""The files that a config names: certificates, keys, authorities, error pages, lists of users, key sets of issuers.
Read once per look, whole, or refused.

A worker loads what the paths hold; what is kept here is enough to know that it can, and when it has changed.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID

from router.config.document import Document
from router.config.document import Path as Place

if TYPE_CHECKING:
    from router.config.audiences import Entry
    from router.config.settings import Settings

LARGEST_PAGE: Final = 1 << 20
FEW_KEYS: Final = 1000
"""A file with no more keys can stand in a snapshot; a longer one is looked up in a member table."""
LONGEST_KEY: Final = 8192
"""Bytes on a line: longer than any header that a key could come from is likely to be."""


@dataclass(frozen=True, slots=True)
class Files:
    """By the paths as the config writes them. ``found`` are the absolute ones."""

    found: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    expiries: dict[str, float] = field(default_factory=dict)
    """Unix time."""
    pages: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Content type and content."""
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The keys of files of users, where there are at most ``FEW_KEYS``; an empty tuple where there are more."""
    key_sets: dict[str, str] = field(default_factory=dict)
    """JWK sets, as JSON text."""

    seen: dict[str, str] = field(default_factory=dict)
    """All of them, the config included, as ``look_at`` saw them when they were read."""


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def look_at(paths: Iterable[str]) -> dict[str, str]:
    """What the files hold now, as digests, or why they cannot be read."""
    seen = {}
    for path in paths:
        try:
            seen[path] = digest_of(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            seen[path] = str(error)
    return seen


def read_files(document: Document, settings: Settings, base: Path) -> Files:
    """What the files hold; relative paths begin at ``base``. What is wrong with them is noted in the document."""
    files = Files()
    for place, path in _named(settings):
        if path in files.found:
            continue
        whole = base / path
        try:
            content = whole.read_bytes()
        except (OSError, ValueError) as error:
            document.add_at(place, f"cannot read {whole}: {getattr(error, 'strerror', None) or error}")
            continue
        files.found[path] = str(whole.absolute())
        files.digests[path] = files.seen[files.found[path]] = digest_of(content)
        if "error_pages" in place:
            kind = mimetypes.guess_type(path)[0] or "text/html"
            files.pages[path] = (f"{kind}; charset=utf-8" if kind.startswith("text/") else kind, content)
            if len(content) > LARGEST_PAGE:
                document.add_at(
                    place, f"{whole} is larger than {LARGEST_PAGE // 1024} KiB: too large for an error page"
                )
        elif "in_file" in place:
            files.lists[path] = _few_keys(document, place, whole, content)
        elif "keys_file" in place:
            files.key_sets[path] = content.decode("utf-8", "replace")
            if why := _wrong_key_set(files.key_sets[path]):
                document.add_at(place, f"{whole} cannot be used: {why}")
    _check_listeners(document, settings, files)
    _check_services(document, settings, files)
    return files


def keys_in(content: bytes) -> Iterator[bytes]:
    """The keys in a text: one a line, without white space around it; lines that begin with # do not count."""
    for line in content.removeprefix(b"\xef\xbb\xbf").splitlines():
        key = line.strip()
        if key and not key.startswith(b"#"):
            yield key


def list_files(settings: Settings) -> dict[str, str]:
    """Every file of users that a rule asks for, by its absolute path → a digest of what it holds."""
    files = settings.files
    return {files.found[path]: files.digests[path] for path in files.lists if path in files.found}


def _few_keys(document: Document, place: Place, path: Path, content: bytes) -> tuple[str, ...]:
    few: list[str] = []
    count = 0
    for key in keys_in(content):
        count += 1
        if len(key) > LONGEST_KEY or b"\0" in key:
            document.add_at(place, f"{path} is not a text with one key a line: a line has {len(key)} bytes")
            return ()
        if count <= FEW_KEYS:
            try:
                few.append(key.decode())
            except UnicodeDecodeError:
                document.add_at(place, f"{path} is not UTF-8 (key {count}): save it as UTF-8")
                return ()
    return tuple(few) if count <= FEW_KEYS else ()


def _wrong_key_set(text: str) -> str:
    """Why a text is not a JWK set of public keys (RFC 7517 §5); "" if it is one."""
    try:
        keys = json.loads(text)["keys"]
        kinds = [str(key["kty"]) for key in keys]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 'it holds no JWK set, which is JSON such as {"keys": [{"kty": "RSA", …}]} (RFC 7517 §5)'
    if not kinds:
        return "it holds no key"
    if "oct" in kinds:
        return "it holds a secret (kty oct): write `secret: ${VARIABLE}` instead"
    if any("d" in key for key in keys):
        return "it holds a private key: only the issuer may have that; leave the public part here"
    return ""


def named_files(settings: Settings, base: Path) -> tuple[str, ...]:
    """The paths of all files that a config names."""
    return tuple(str((base / path).absolute()) for _, path in _named(settings))


def _named(settings: Settings) -> Iterator[tuple[Place, str]]:
    for i, listener in enumerate(settings.listen):
        if listener.tls is not None:
            for j, one in enumerate(listener.tls.certificates):
                yield ("listen", i, "tls", "certificates", j, "certificate"), one.certificate
                yield ("listen", i, "tls", "certificates", j, "key"), one.key
            if listener.tls.client_ca is not None:
                yield ("listen", i, "tls", "client_ca"), listener.tls.client_ca
    for name, service in settings.services.items():
        for key in ("ca", "certificate", "key"):
            path = getattr(service.tls, key)
            if path is not None:
                yield ("services", name, "tls", key), path
        for status, path in service.error_pages.items():
            yield ("services", name, "error_pages", str(status)), path
        for i, ring in enumerate(service.rings):
            at: Place = ("services", name, "rings", i)
            yield from _lists(ring.audience, (*at, "audience"))
            yield from _lists(ring.deny, (*at, "deny"))
    for issuer, one_issuer in settings.tokens.items():
        if one_issuer.keys_file is not None:
            yield ("tokens", issuer, "keys_file"), one_issuer.keys_file


def _lists(entries: Iterable[Entry], place: Place) -> Iterator[tuple[Place, str]]:
    for i, entry in enumerate(entries):
        yield from _lists_of(entry, (*place, i))


def _lists_of(entry: Entry, at: Place) -> Iterator[tuple[Place, str]]:
    if entry.user is not None and entry.user.in_file is not None:
        yield (*at, "user", "in_file"), entry.user.in_file
    yield from _lists(entry.all_of or (), (*at, "all_of"))
    yield from _lists(entry.any_of or (), (*at, "any_of"))
    if entry.not_ is not None:
        yield from _lists_of(entry.not_, (*at, "not"))


def _check_listeners(document: Document, settings: Settings, files: Files) -> None:
    for i, listener in enumerate(settings.listen):
        if listener.tls is None:
            continue
        for j, one in enumerate(listener.tls.certificates):
            place: Place = ("listen", i, "tls", "certificates", j)
            if one.certificate in files.found and one.key in files.found:
                _check_pair(document, (*place, "key"), files.found[one.certificate], files.found[one.key])
                _read_certificate(document, (*place, "certificate"), one.certificate, files)
        ca = listener.tls.client_ca
        if ca in files.found:
            _check_authorities(document, ("listen", i, "tls", "client_ca"), files.found[ca])
        if listener.tls.client_certificate != "none" and ca is None:
            document.add_at(
                ("listen", i, "tls", "client_certificate"), "client certificates need `client_ca`: who signs them"
            )


def _check_services(document: Document, settings: Settings, files: Files) -> None:
    for name, service in settings.services.items():
        tls = service.tls
        if tls.ca in files.found:
            _check_authorities(document, ("services", name, "tls", "ca"), files.found[tls.ca])
        if (tls.certificate is None) != (tls.key is None):
            document.add_at(("services", name, "tls"), "`certificate` and `key` come together: give both")
        elif tls.certificate in files.found and tls.key in files.found:
            _check_pair(document, ("services", name, "tls", "key"), files.found[tls.certificate], files.found[tls.key])


def _check_pair(document: Document, place: Place, certificate: str, key: str) -> None:
    try:
        # An empty passphrase is one that is wrong; without it OpenSSL would ask at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or str(error)
        document.add_at(place, f"certificate {certificate} and key {key} cannot be used together: {why}")


def _check_authorities(document: Document, place: Place, path: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (OSError, ValueError) as error:
        document.add_at(place, f"{path} holds no certificates in PEM form: {getattr(error, 'reason', error)}")


def _read_certificate(document: Document, place: Place, path: str, files: Files) -> None:
    """The host names that a certificate is for (RFC 9525: the subject's only where there is no other), and its end."""
    files.names[path] = ()
    try:
        certificate = x509.load_pem_x509_certificate(Path(files.found[path]).read_bytes())
        try:
            extension = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
            assert isinstance(extension, x509.SubjectAlternativeName)
            found = extension.get_values_for_type(x509.DNSName)
        except x509.ExtensionNotFound:
            found = [str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except (OSError, ValueError) as error:
        document.add_at(place, f"{files.found[path]} holds no certificate in PEM form: {error}")
        return
    files.names[path] = tuple(name.lower() for name in found)
    files.expiries[path] = certificate.not_valid_after_utc.timestamp()
