"""Compare many rows in two places by digests of ranges, and find the few that differ."""
