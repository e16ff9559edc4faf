"""JSON documents: paths into them, arrays without end, and text that is almost JSON."""
