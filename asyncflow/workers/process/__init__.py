"""Inside a worker process: receive an order, run the step, store its artifacts, report.

The engine's process imports none of these modules; the fork server loads them for its workers.
"""
