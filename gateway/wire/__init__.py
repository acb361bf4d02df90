"""Bytes to values and back: pure parsing and formatting of what goes over the wire."""
