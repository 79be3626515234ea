"""`python -m foundry3d_edge`."""

from foundry3d_edge.cli import main

raise SystemExit(main())
