"""How near what the pack makes comes to what it should be."""
