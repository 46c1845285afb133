"""When runs fire, and which window each covers."""
