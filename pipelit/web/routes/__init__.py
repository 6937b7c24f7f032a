"""The routes, one module per section of the contract. Each exports `ROUTES`."""
