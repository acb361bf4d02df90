"""A vLLM server in software, in real or virtual time."""
