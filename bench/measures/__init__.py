"""What is measured of each contestant, one module a kind. Each answers figures by name, of one turn."""
