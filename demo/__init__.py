"""The demonstration behind `make demo`: a clip played over DDS into the real node, recorded, and
reported on."""
