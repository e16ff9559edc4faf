"""The shop, for the tests of tasks."""

from tests.shop import shop

__all__ = ["shop"]
