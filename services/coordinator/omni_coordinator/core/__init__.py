"""What the coordinator decides, without a clock, a socket or a task."""
