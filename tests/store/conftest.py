from tests.kit.store import migrated, store, store_url

__all__ = ["migrated", "store", "store_url"]
