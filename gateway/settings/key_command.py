"""`llm-gateway make-key`: a new API key, and the lines for the configuration."""

import secrets
from argparse import ArgumentParser, Namespace
from hashlib import sha256

import yaml
from pydantic import ValidationError

from gateway.settings.access import ApiKeySettings
from gateway.settings.problems import ConfigurationError, problems_of

_KEY_BYTES = 32


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the key may do."""
    parser.add_argument("name", metavar="NAME", help="what logs and metrics call the key")
    parser.add_argument("--services", metavar="A,B", help="services it may use (all)")
    parser.add_argument("--requests-per-minute", metavar="N", type=int, help="(no limit)")
    parser.add_argument("--tokens-per-minute", metavar="N", type=int, help="(no limit)")


def run(arguments: Namespace) -> int:
    """Print the key and its entry; only the client keeps the key itself.

    Raises:
        ConfigurationError: the entry would not be valid.
    """
    key = f"sk-{secrets.token_urlsafe(_KEY_BYTES)}"
    services = arguments.services
    wanted = {
        "name": arguments.name,
        "sha256": sha256(key.encode()).hexdigest(),
        "services": None if services is None else [name for name in services.split(",") if name],
        "requests_per_minute": arguments.requests_per_minute,
        "tokens_per_minute": arguments.tokens_per_minute,
    }
    entry = {name: value for name, value in wanted.items() if value is not None}
    try:
        ApiKeySettings.model_validate(entry)
    except ValidationError as error:
        raise ConfigurationError(problems_of(error, {}, section=ApiKeySettings)) from error
    text = yaml.safe_dump({"api_keys": [entry]}, sort_keys=False)
    print(f"# For the client, and shown only here: {key}")  # noqa: T201 - the command's output
    print(text, end="")  # noqa: T201 - likewise
    return 0
