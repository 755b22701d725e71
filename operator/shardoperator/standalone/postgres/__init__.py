"""PostgreSQL servers of our own, for the demo and the tests: started from binaries, tied to this process, gone without a trace."""
