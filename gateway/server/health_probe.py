"""Asks a gateway on this machine whether it serves: for health checks of containers."""

import http.client
import ssl

_TIMEOUT_S = 3.0
_OF_THIS_MACHINE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - looked up


def ask_health(host: str, port: int, *, tls: bool = False) -> str | None:
    """Ask /health of the listener on `host` and `port`.

    Args:
        host: as the listener's setting has it; an address that means "all" is asked on loopback.
        port: of the listener.
        tls: whether it speaks TLS; whose certificate it shows does not matter to its own machine.

    Returns:
        What is wrong, None if it serves.
    """
    asked = _OF_THIS_MACHINE.get(host, host)
    connection: http.client.HTTPConnection
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(asked, port, timeout=_TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection(asked, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{asked}:{port} does not answer: {error}"
    finally:
        connection.close()
    return None if status == 200 else f"{asked}:{port} answers /health with {status}"
