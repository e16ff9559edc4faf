"""Where Headwater runs: the local stack, the demo's source systems, and what a production installation needs."""
