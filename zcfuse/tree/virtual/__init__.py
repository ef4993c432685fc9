"""The tree that shows a program's `Dir`."""
