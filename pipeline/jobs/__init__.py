"""Whole jobs on files: two passes, replay of records."""
