"""TLS towards clients and towards servers, from the files that the configuration names.

Files are read when a context is made, so a fault in them is a fault of the configuration.
"""

import ssl
from pathlib import Path

from gateway.settings.access import AccessSettings
from gateway.settings.pool_defaults import PoolDefaults


class TlsFileError(ValueError):
    """A certificate or key cannot be used; `key` is the setting that names the file."""

    def __init__(self, key: str, path: Path | None, text: str) -> None:
        super().__init__(f"{key}: {path}: {text}")
        self.key = key
        self.path = path
        self.text = text


def client_side_context(settings: AccessSettings) -> ssl.SSLContext | None:
    """What the clients' listener speaks TLS with; None without a certificate.

    Raises:
        TlsFileError: certificate or key is missing, unreadable, or they do not belong together.
    """
    if settings.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_certificate(context, settings)
    return context


def load_certificate(context: ssl.SSLContext, settings: AccessSettings) -> None:
    """Show the certificate of the settings in every handshake from now on.

    Raises:
        TlsFileError: it cannot be used; the context goes on with what it had.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    assert certificate is not None
    # On a context of its own first: a pair that does not match must not replace one that does.
    _load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "tls", certificate, key)
    _load_pair(context, "tls", certificate, key)


def server_side_context(pool: PoolDefaults) -> ssl.SSLContext:
    """What https servers of a pool are spoken to with.

    Raises:
        TlsFileError: a file is missing or unreadable.
    """
    authority = pool.upstream_tls_ca
    try:
        context = ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise TlsFileError("upstream_tls_ca", authority, _reason(error)) from error
    if not pool.upstream_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if pool.upstream_tls_certificate is not None:
        _load_pair(context, "upstream_tls", pool.upstream_tls_certificate, pool.upstream_tls_key)
    return context


def _load_pair(context: ssl.SSLContext, prefix: str, certificate: Path, key: Path | None) -> None:
    for name, path in ((f"{prefix}_certificate", certificate), (f"{prefix}_key", key)):
        if path is not None:
            try:
                path.open("rb").close()
            except OSError as error:
                raise TlsFileError(name, path, f"cannot be read: {error.strerror}") from error
    try:
        # An empty password: a key that needs one is an error, not a question on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise TlsFileError(f"{prefix}_certificate", certificate, _reason(error)) from error


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        return f"expected certificates and an unencrypted key in PEM that match: {reason}"
    return f"cannot be read: {error.strerror}"
