"""Errors of the simulated API, in vLLM 0.32's words and shapes (as recorded)."""

import orjson

BUSY = (
    "The engine is currently busy and cannot accept new requests. "
    "Please try again later or on a different instance."
)
ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class ApiError(Exception):
    """A refusal: HTTP status and the fields of the error object."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        """Make a refusal; `kind` is the error object's `type`."""
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param

    def body(self) -> bytes:
        """The JSON body of an error answer."""
        return orjson.dumps({"error": self._fields()})

    def event(self) -> bytes:
        """The same inside a stream that has begun (there with spaces, as vLLM writes it)."""
        fields = b", ".join(
            orjson.dumps(name) + b": " + orjson.dumps(value)
            for name, value in self._fields().items()
        )
        return b'data: {"error": {' + fields + b"}}\n\n"

    def _fields(self) -> dict[str, str | int | None]:
        return {
            "message": str(self),
            "type": self.kind,
            "param": self.param,
            "code": self.status,
        }


def invalid_value(message: str, param: str, value: object) -> ApiError:
    """A value that vLLM itself refuses."""
    text = f"{message} (parameter={param}, value={value})"
    return ApiError(400, "BadRequestError", text, param)


def invalid_body(problem: str, param: str | None = None) -> ApiError:
    """A body that does not have the schema's form."""
    return ApiError(400, "Bad Request", f"1 validation error:\n  {problem}", param)


def missing_field(name: str, fields: int) -> ApiError:
    """A required field that is not there, in a body of so many fields."""
    problem = (
        f"{{'type': 'missing', 'loc': 'body.{name}', 'msg': 'Field required', "
        f"'input': '<dict of {fields} items>'}}"
    )
    return invalid_body(problem, f"body.{name}")


def unknown_model(name: object, served: str) -> ApiError:
    """A model that is not served here; `served` is the base model's name."""
    message = f"The model `{name}` does not exist. Valid aliases: {served}."
    return ApiError(404, "NotFoundError", message, "model")


def queue_full() -> ApiError:
    """The engine's queue is full."""
    return ApiError(503, "Service Unavailable", BUSY)


def engine_dead() -> ApiError:
    """The engine died while it worked on the request."""
    return ApiError(500, "InternalServerError", ENGINE_DEAD)
