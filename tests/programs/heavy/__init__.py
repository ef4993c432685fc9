"""The programs that take hundreds of megabytes to install: for ``make proof`` alone.

Their tests carry the mark `proof`, which pytest leaves out unless it is asked for.
"""
