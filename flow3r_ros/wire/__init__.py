"""Messages to numpy and back, for any class with the right fields: rclpy messages in the node,
rosbags dataclasses in bags. ROS-free."""
