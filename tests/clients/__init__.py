"""What the stories of tests/test_clients_*.py stand on: real servers, a real router before them, real programs."""
