"""What runs, and in which order. Flows compose tasks; each is a deployment in prefect.yaml."""
