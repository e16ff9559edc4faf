"""The commands of `headwater`, by what they are about; deployments/cli.py puts them together."""
