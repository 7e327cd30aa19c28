"""The map beyond the window: keyframe graph, places, loops, maps on disk, refinement."""
