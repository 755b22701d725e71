"""`pgshepherd demo`: the whole product in a minute, on servers of its own; every claim is checked, and nothing is left behind."""
