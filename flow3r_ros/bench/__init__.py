"""Every suite of `flow3r bench`, and the toy baselines they measure against; nothing at run time
imports it."""
