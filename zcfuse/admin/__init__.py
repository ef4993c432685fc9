"""Administration of a mount: its status, its metrics, its locked files, and how to end it."""
