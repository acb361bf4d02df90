"""Keys, limits and certificates as parts that follow the configuration."""

import ssl
from collections.abc import Callable

from gateway.server.admin_access import AdminAccess
from gateway.server.api_keys import AccessControl
from gateway.server.entrance import Entrance, EntranceLimits
from gateway.settings.policies import key_policies
from gateway.settings.problems import ConfigurationError, Problem
from gateway.settings.schema import Settings
from gateway.settings.tls import TlsFileError, client_side_context, load_certificate


def entrance_limits(settings: Settings) -> EntranceLimits:
    """What may be in flight."""
    return EntranceLimits(
        requests=settings.max_requests,
        requests_per_client=settings.max_requests_per_client,
        body_bytes=settings.max_body_memory,
    )


def admin_key(settings: Settings) -> str | None:
    """The key of the administration listener."""
    key = settings.admin_api_key
    return None if key is None else key.get_secret_value()


class AccessRules:
    """Who comes in; `follow` is the part."""

    def __init__(self, *, access: AccessControl, entrance: Entrance, admin: AdminAccess) -> None:
        self._access = access
        self._entrance = entrance
        self._admin = admin

    def follow(self, settings: Settings) -> Callable[[], None]:
        """Change keys, what they may do, and how much may be in flight."""
        policies = key_policies(settings)

        def carry_out() -> None:
            self._access.replace(policies, required=settings.requires_keys)
            self._entrance.limits = entrance_limits(settings)
            self._admin.set_key(admin_key(settings))

        return carry_out


class ServingCertificate:
    """The certificate that clients see; `follow` is the part.

    Files of the same names are read again: that is how certificates are renewed.
    """

    def __init__(self, settings: Settings) -> None:
        self.context: ssl.SSLContext | None = client_side_context(settings)

    def follow(self, settings: Settings) -> Callable[[], None]:
        """Show the certificate of the settings in handshakes from now on."""
        context = self.context
        if (context is None) != (settings.tls_certificate is None):
            text = "TLS is turned on and off by a restart only"
            key = "tls_certificate"
            raise ConfigurationError([Problem(settings.origins.get(key, ""), key, text)])
        if context is None:
            return lambda: None
        try:
            load_certificate(context, settings)
        except TlsFileError as error:
            source = settings.origins.get(error.key, "")
            raise ConfigurationError([Problem(source, error.key, error.text)]) from error
        return lambda: None
