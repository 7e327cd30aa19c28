"""Everything recorded that can be read: videos, picture folders, bags as frames, and the public
data sets."""
