"""Whether tracing is asked for, by the variables that every OpenTelemetry program reads."""

from urllib.parse import urlsplit

from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.settings.problems import fault

_EXPECTED = "expected the collector's URL for OTLP over HTTP such as http://collector:4318"


class TracingSettings(BaseSettings):
    """The variables that turn tracing on; the SDK reads these and the others itself."""

    model_config = SettingsConfigDict(env_prefix="OTEL_", extra="ignore")

    exporter_otlp_endpoint: str = ""
    exporter_otlp_traces_endpoint: str = ""
    traces_exporter: str = "otlp"
    sdk_disabled: str = ""

    def wanted(self) -> bool:
        """Whether there is a collector, and nothing forbids to send it traces.

        Raises:
            ConfigurationError: what names the collector is not a URL that spans can be sent to.
        """
        name, endpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", self.exporter_otlp_traces_endpoint
        if not endpoint:
            name, endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT", self.exporter_otlp_endpoint
        disabled = self.sdk_disabled.strip().lower() == "true"  # all else is false by the standard
        if not endpoint or self.traces_exporter == "none" or disabled:
            return False
        if not _is_web_address(endpoint):
            raise fault(name, "", f"{endpoint!r}: {_EXPECTED}")
        return True


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
