"""Probes: one file per kind. To add one, write the file and its line in KINDS."""
