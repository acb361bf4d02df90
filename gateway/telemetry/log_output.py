"""Where the process's own messages go: standard error, as text or as JSON lines."""

import logging
from typing import ClassVar

import orjson


def configure_logging(*, level: str, as_json: bool) -> None:
    """Send messages of `level` (debug, info, warning, error) and above to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())


class JsonLines(logging.Formatter):
    """One JSON object per message."""

    _TIME: ClassVar[str] = "%Y-%m-%dT%H:%M:%S%z"

    def format(self, record: logging.LogRecord) -> str:
        """Encode time, level, logger, message, and the traceback of an exception."""
        line: dict[str, object] = {
            "time": self.formatTime(record, self._TIME),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()
