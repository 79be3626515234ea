"""`python -m foundry3d` is the command line."""

from foundry3d.cli import main

main()
