"""What the stand-ins for outside services have in common: how each is served, controlled and told to fail."""
