"""Recorded data: one row per step, events, names of variables."""
