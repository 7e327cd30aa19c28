"""Flow labels of unlabelled recordings: clips, teachers, the cache, the fleet."""
