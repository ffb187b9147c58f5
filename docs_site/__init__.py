"""What makes a site of the pages in docs/: the theme, and the program that makes the pictures."""
