"""Whether tracing is asked for, by the variables that every OpenTelemetry program reads."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class TracingSettings(BaseSettings):
    """The variables that turn tracing on; the SDK reads these and the others itself."""

    model_config = SettingsConfigDict(env_prefix="OTEL_", extra="ignore")

    exporter_otlp_endpoint: str = ""
    exporter_otlp_traces_endpoint: str = ""
    traces_exporter: str = "otlp"
    sdk_disabled: bool = False

    @property
    def wanted(self) -> bool:
        """Whether there is a collector, and nothing forbids to send it traces."""
        endpoint = self.exporter_otlp_traces_endpoint or self.exporter_otlp_endpoint
        return bool(endpoint) and self.traces_exporter != "none" and not self.sdk_disabled
