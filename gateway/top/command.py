"""`llm-gateway top [--url URL] [--key KEY] [--once]`: watch a running gateway in a terminal.

Exit status: 0 ended by the viewer, 1 the gateway cannot be reached, 2 wrong use or key.
"""

import sys
from argparse import ArgumentParser, Namespace

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.top.admin_client import AdminClient, NotAuthorized, Unreachable

_URL = "http://127.0.0.1:8081"


class _Environment(BaseSettings):
    """The key, from the variable that the gateway itself takes it from."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", extra="ignore")

    admin_api_key: SecretStr | None = None


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--url", default=_URL, help=f"of the administration listener ({_URL})")
    parser.add_argument(
        "--key", help="admin_api_key, if it asks for one (or GATEWAY_ADMIN_API_KEY)"
    )
    parser.add_argument("--once", action="store_true", help="print the state once and end")


def run(arguments: Namespace) -> int:
    """Show the gateway until interrupted; return the exit status."""
    try:
        from gateway.top import terminal  # noqa: PLC0415 - rich is an extra
    except ModuleNotFoundError as error:
        if error.name != "rich":
            raise
        return _failed(2, "top needs rich: pip install 'llm-instance-gateway[top]'")
    key = arguments.key
    if key is None:
        known = _Environment().admin_api_key
        key = known.get_secret_value() if known is not None else None
    try:
        client = AdminClient(arguments.url, key=key)
    except ValueError as error:
        return _failed(2, f"--url: {error}")
    try:
        if arguments.once:
            terminal.print_once(client)
        else:
            terminal.watch(client)
    except NotAuthorized:
        return _failed(2, f"{arguments.url} asks for a key: --key, or GATEWAY_ADMIN_API_KEY")
    except Unreachable as error:
        return _failed(
            1, f"{arguments.url}: {error}; is the gateway running, and is this its --url?"
        )
    return 0


def _failed(status: int, text: str) -> int:
    sys.stderr.write(f"llm-gateway: {text}\n")
    return status
