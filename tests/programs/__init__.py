"""Real programs on a real mount: their results, and the proof of the path that served them.

`served` has the mount and the proof, `records` the results for a table, `servers` the children
that listen. Each test module covers one program or one kind of program.
"""
