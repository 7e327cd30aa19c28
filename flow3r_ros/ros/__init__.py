"""The ROS 2 side: the only place that imports rclpy. Wiring only; what it wires lives in `wire`,
`odometry` and `network`."""
