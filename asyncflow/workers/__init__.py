"""Where tasks run.

`interface` defines what the scheduler needs of an executor, `messages` the messages between engine
and workers. `local` starts worker processes on this machine, and `process` runs inside one.
"""
