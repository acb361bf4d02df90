"""Policies to compare with; each a small file with its exact definition and source."""
