"""One file per source system. To add one: copy the nearest, then add it to `connectors.registry`."""
