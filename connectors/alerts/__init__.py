"""Alerts: messages about incidents, the outbox that keeps each until it is delivered, and the channels it goes to."""
