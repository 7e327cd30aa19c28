"""The paper's eight benchmarks and three that robot users ask for, each read from its real on-disk
format."""
