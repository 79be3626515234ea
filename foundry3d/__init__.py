"""foundry3d."""
