"""Episodes of any source as LeRobot data sets and rosbag2 folders."""
