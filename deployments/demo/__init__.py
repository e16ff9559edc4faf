"""The demo's source systems, as a team would meet them: a REST API, an operational database, files in a bucket.

They serve one real data set (flights from New York's airports in 2013) at the instant of a simulated clock. The
product knows them by their addresses only; nothing of it imports this package.
"""
