"""The files that a mount keeps locked in memory."""
