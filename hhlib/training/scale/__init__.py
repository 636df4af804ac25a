"""What only several processes or small memories need."""
