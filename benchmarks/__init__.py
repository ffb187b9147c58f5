"""What asyncflow costs, measured beside something that does the same by hand."""
