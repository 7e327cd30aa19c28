"""Programs to learn the library from; each also opens as a notebook (cells begin with `# %%`)."""
