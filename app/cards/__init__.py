"""Cards of Simulators: what they are worth, measured against the real task, and in plain words."""
