"""One run's brain and its driver, and the assignment of tasks to workers.

`plan` decides and does nothing else. `run_driver` carries facts to the journal, the plan and the
subscribers. `dispatcher` connects runs with an executor; `task_assigner`, `step_admission`,
`gang_workers`, `report_router`, `worker_watch` and `task_stopper` do its work. Nothing here imports
the engine, and of workers only `workers.interface` and `workers.messages`.
"""
