"""Decides what runs where and when: pure, synchronous, deterministic."""
