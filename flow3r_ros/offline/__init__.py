"""Offline work: sources of frames, the run driver, and run folders that appear complete or not at
all."""
