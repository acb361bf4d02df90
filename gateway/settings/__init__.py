"""Configuration: flag over GATEWAY_* variable over YAML file over default, frozen once loaded."""
