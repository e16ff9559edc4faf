"""HTTP as sources are read with it: pace, retries, limits, credentials, and which addresses may be asked."""
