# The disks that the pools of the page show.
mkdir -p /disks/a /disks/b /fast /slow
