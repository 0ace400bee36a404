"""Who may issue certificates of devices, and which of those they have taken back."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from anxin.config import Settings
from anxin.errors import SettingError

_LIST = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


class Revocations:
    """What the lists in one file take back: certificates by who issued them and their number."""

    def __init__(self, numbers: frozenset[tuple[bytes, int]] = frozenset()) -> None:
        """Take back these; by default none."""
        self._numbers = numbers
        self.due: datetime | None = None
        """When the first of the lists should have been replaced by a newer one."""

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Read ANXIN_TLS_CLIENT_CRL, PEM or DER; each list must be signed by a client authority.

        Raises SettingError.
        """
        name = "ANXIN_TLS_CLIENT_CRL"
        if not settings.tls_client_crl:
            return cls()
        if not settings.tls_client_ca:
            raise SettingError(f"{name} needs ANXIN_TLS_CLIENT_CA.")
        issuers = authorities(settings.tls_client_ca)
        try:
            content = Path(settings.tls_client_crl).read_bytes()
            lists = [x509.load_pem_x509_crl(part) for part in _LIST.findall(content)]
            lists = lists or [x509.load_der_x509_crl(content)]
            if not all(_signed(one, issuers) for one in lists):
                raise SettingError(
                    f"{name}: a list in it was not signed by an authority of ANXIN_TLS_CLIENT_CA."
                )
        except OSError as error:
            raise SettingError(f"{name} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise SettingError(f"{name} is no revocation list, PEM or DER.") from error
        made = cls(
            frozenset(
                (one.issuer.public_bytes(), entry.serial_number) for one in lists for entry in one
            )
        )
        made.due = min((one.next_update_utc for one in lists if one.next_update_utc), default=None)
        return made

    def __len__(self) -> int:
        """How many certificates are taken back."""
        return len(self._numbers)

    def take_back(self, certificate: bytes) -> bool:
        """Tell whether a certificate (DER) is taken back."""
        if not self._numbers:
            return False
        one = x509.load_der_x509_certificate(certificate)
        return (one.issuer.public_bytes(), one.serial_number) in self._numbers

    def overdue(self, now: datetime | None = None) -> bool:
        """Tell whether a newer list should be there; what this one takes back stays so."""
        return self.due is not None and self.due < (now or datetime.now(UTC))


def authorities(path: str) -> Sequence[x509.Certificate]:
    """Return the certificates of ANXIN_TLS_CLIENT_CA; raise SettingError."""
    try:
        return x509.load_pem_x509_certificates(Path(path).read_bytes())
    except OSError as error:
        raise SettingError(f"ANXIN_TLS_CLIENT_CA cannot be used: {error.strerror}.") from error
    except ValueError as error:
        raise SettingError("ANXIN_TLS_CLIENT_CA holds no certificate (PEM).") from error


def _signed(one: x509.CertificateRevocationList, issuers: Sequence[x509.Certificate]) -> bool:
    for issuer in issuers:
        if issuer.subject != one.issuer:
            continue
        try:
            if one.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]  # any key
                return True
        except (TypeError, UnsupportedAlgorithm):
            continue
    return False
