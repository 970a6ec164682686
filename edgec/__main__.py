"""`python3 -m edgec` is the command line."""

from edgec.cli import main

main()
