"""What `doctor` examines: everything that a refresh cycle depends on, and the targets themselves."""
