"""Where tasks run.

`interface` says what the scheduler asks of an executor, `messages` what engine and workers say to
each other. `local` starts worker processes on this machine, and `process` is what runs within one.
"""
