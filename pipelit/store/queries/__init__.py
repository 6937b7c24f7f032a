"""What the product asks of its tables: plain functions of a connection, one module per resource."""
