"""The record of a run, report.html and its figures."""
