"""Real programs on a real mount: their results, and the proof of what served them.

`served` has the mount and the proof, `records` the results for a table, `servers` the children
that listen. The modules of tests are one a program, or one a kind of program.
"""
