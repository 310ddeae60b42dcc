"""What the router is measured beside, and the backends they all share."""
