"""The same small flow in the words of other engines."""
