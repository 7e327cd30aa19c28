"""Multi-view geometry of one moving camera: numpy and OpenCV, no torch, no ROS."""
