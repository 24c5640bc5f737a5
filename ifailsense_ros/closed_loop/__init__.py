"""The closed loop: a simulated robot that errs, a planner that listens to the monitor, the gain."""
