"""Batch experiments: many seeds and settings as one compiled program."""
