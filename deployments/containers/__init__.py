"""Headwater in containers: the image, the services of one machine, and what they need to be told. See
docs/containers.md."""
