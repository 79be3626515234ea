"""What reproduces the paper: its tables (`suite`), cost rows, closed forms and gate sweep."""
