"""The demo: simulated vLLM servers behind the gateway, in one process, with clients if wanted."""
