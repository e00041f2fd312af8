"""Which certificate authorities the agent trusts: the system's, or those of ``tls_ca_file``."""

from pathlib import Path
from typing import Any

from cryptography.x509 import load_pem_x509_certificates
from OpenSSL.crypto import X509
from twisted.internet.ssl import Certificate, trustRootFromCertificates

from belatwist.errors import ConfigError
from belatwist.text import one_line


def trust_root(ca_file: Path | None) -> Any:
    """Return the certificates of a file; ``None`` for the system's.

    :raises ConfigError: when no certificate can be read.
    """
    if ca_file is None:
        return None
    try:
        found = load_pem_x509_certificates(ca_file.read_bytes())
    except (OSError, ValueError) as error:
        reason = one_line(str(error))[:300]
        raise ConfigError(f"remote.tls_ca_file: {ca_file}: cannot be read: {reason}") from error
    return trustRootFromCertificates([Certificate(X509.from_cryptography(one)) for one in found])
