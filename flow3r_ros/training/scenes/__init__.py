"""The factory of synthetic scenes."""
