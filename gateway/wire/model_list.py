"""The model list of a server with OpenAI's API."""

from typing import Final

import msgspec
from msgspec import Struct

from gateway.scheduling.model import ServedModel


class _Model(Struct):
    id: str
    parent: str | None = None
    max_model_len: int | None = None


class _ModelList(Struct):
    data: list[_Model]


_MODEL_LIST: Final = msgspec.json.Decoder(_ModelList)


def scan_models(body: bytes) -> tuple[ServedModel, ...] | None:
    """The models of a /v1/models answer; None if the body is no such list."""
    try:
        models = _MODEL_LIST.decode(body).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return tuple(ServedModel(model.id, model.parent, model.max_model_len) for model in models)
