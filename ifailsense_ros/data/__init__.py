"""Data sets: the parquet episode store, pairing and readers (core only: no torch, no rclpy)."""
