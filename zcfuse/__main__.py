"""``python -m zcfuse``: the command line, without the script that an installation makes."""

from zcfuse.cli import main

if __name__ == "__main__":
    main()
