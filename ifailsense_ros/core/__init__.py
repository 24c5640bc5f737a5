"""What the monitor is made of, with neither ROS nor torch: the same code live and offline."""
