"""`python -m test.cases ../shared/cases`: other people's inputs through the public commands."""
