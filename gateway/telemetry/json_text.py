"""JSON for people and collectors, of values that clients had a say in."""

import json
from dataclasses import asdict, is_dataclass
from typing import Any

import msgspec
import orjson


def encode_json(value: object) -> bytes:
    """Encode plain data, dataclasses, structures of msgspec and named tuples (all as objects).

    Text that is no Unicode (a lone surrogate that a client sent escaped) comes out escaped: what
    is told of a request must not depend on its client's manners.
    """
    try:
        return orjson.dumps(value, default=_as_object)
    except orjson.JSONEncodeError:
        return json.dumps(_plain(value)).encode()


def _as_object(value: object) -> object:
    # Named tuples are tuples, which orjson leaves to us as it does every subclass of them.
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    raise TypeError(f"cannot encode {type(value).__name__}")


def _plain(value: object) -> Any:  # noqa: ANN401 - any JSON
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, msgspec.Struct):
        return _plain(msgspec.structs.asdict(value))
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
