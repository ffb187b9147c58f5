"""The basement: event loop, threads, forks, text, settings, log. Nothing about flows or runs.

Every package may import from here. Modules here import nothing of asyncflow but `errors`.
"""
