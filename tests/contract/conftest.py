"""The fixtures of tests that run against a whole server process."""

from tests.kit.site import people, provider, site, slug

__all__ = ["people", "provider", "site", "slug"]
