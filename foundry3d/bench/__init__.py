"""What is measured on this machine: `foundry3d bench`."""
