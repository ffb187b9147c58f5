"""Maintenance of a store: verify it, collect garbage, remove runs.

Running a flow and reading a run need nothing from here.
"""
