"""The basement: the event loop, threads, forks, text, settings, the log. Nothing of the domain.

Every package may import from here. Modules here import nothing of asyncflow but `errors`.
"""
