"""What watches from outside: the Prefect server, its workers and runs, the warehouse, the channels, and the data.

It is a process of its own (`headwater watch`), started by the local stack, or by systemd, a cron job or Kubernetes
elsewhere, best on another machine than what it watches. It needs nothing of Prefect's to speak: neither server nor
worker. Nor does it need the warehouse, to say that it is gone.

`server` reads Prefect's API, `judgement` says what is wrong there, `rounds` puts a round together, `memory` keeps what
must outlast a restart while the warehouse is away.
"""
