"""The FUSE operations: pyfuse3 calls these, and they ask a tree.

The trio thread runs all of them.
"""
