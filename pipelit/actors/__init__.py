"""The living part of the product: its actors and the runtime they stand on."""
