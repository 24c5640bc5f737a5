"""The ROS 2 side: the only importer of rclpy and of the generated messages."""
