"""Runs the scheduler and its baselines on simulated engines, and compares them."""
