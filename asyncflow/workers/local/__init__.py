"""Worker processes on this machine: the pool in the engine's process, and the fork server.

Nothing here knows what a step is.
"""
