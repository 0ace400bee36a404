"""Who is at the other end of a connection, as far as the network and a certificate tell."""

import ipaddress
import ssl
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from ingest.inbound import Peer
from ingest.mqtt.topics import DEVICE_ID


def peer_of(address: object, tls: str | None, certificate: Mapping[str, Any] | None) -> Peer:
    """Return the peer behind a socket.

    `address` is what the socket calls its peer; `certificate` what `ssl` found good, as its
    `getpeercert()` gives it: empty when there was none.
    """
    host = str(address[0]) if isinstance(address, tuple) and address else ""
    if not certificate:
        return Peer(address=host, network=network_of(host), tls=tls or "")
    return Peer(
        address=host,
        network=network_of(host),
        tls=tls or "",
        names=frozenset(filter(DEVICE_ID.fullmatch, _names(certificate))),
        issued_at=_moment(certificate["notBefore"]),
        until=_moment(certificate["notAfter"]),
    )


def network_of(host: str) -> str:
    """Return the kind of network that an address belongs to."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "other"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_loopback:
        return "loopback"
    if address.is_private:
        return "private"
    return "public" if address.is_global else "other"


def _names(certificate: Mapping[str, Any]) -> Iterable[str]:
    """Yield the common name and the DNS names of a certificate."""
    for part in certificate.get("subject", ()):
        for name, value in part:
            if name == "commonName":
                yield value
    for name, value in certificate.get("subjectAltName", ()):
        if name == "DNS":
            yield value


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
