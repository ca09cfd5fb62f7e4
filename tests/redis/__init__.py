"""Real Redis for tests: servers as plain processes on loopback, and faults between them and the product.

`servers` one server · `sentinel` primary, replica, three Sentinels · `cluster` six nodes ·
`faults` a RESP-aware proxy of ours (this command, that reply) · `toxic` toxiproxy (latency, cuts, black holes).
"""
