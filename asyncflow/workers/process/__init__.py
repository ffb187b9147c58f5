"""Inside a worker process: take an order, run the step, store its artifacts, report.

Nothing of the engine's process imports these modules; the fork server loads them for its workers.
"""
