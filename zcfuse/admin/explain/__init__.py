"""How the mount serves one file, and why it uses no better path."""
