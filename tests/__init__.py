"""The tests. Real servers on loopback, no mocks."""
