"""Where data goes: the landing (an object store) and the warehouse (PostgreSQL). Sources never import this."""
