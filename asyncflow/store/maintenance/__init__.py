"""What looks after a store: verify it, collect garbage, remove runs.

Nothing here is needed to run a flow or to read a run.
"""
