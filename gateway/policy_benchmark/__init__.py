"""Policies compared in virtual time: workloads, baselines, the closed-form bound, reports."""
