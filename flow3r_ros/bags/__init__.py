"""rosbag2 (and ROS 1) bags without ROS: reader, writer, replay, and a bag made from a video."""
