"""The command line as `python -m slalom`."""

from slalom.cli import main

main()
