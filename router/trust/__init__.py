"""What is believed of a request beyond its bytes: signed passes, verified tokens, a ring that somebody else chose."""
