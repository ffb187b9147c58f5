"""One run's brain and its driver, and which task goes to which worker.

`plan` decides and does nothing else. `run_driver` carries facts to the journal, the plan and the
subscribers. `dispatcher` and `placement` give tasks to workers. Nothing here imports the engine,
and of workers only `workers.interface` and `workers.messages`.
"""
