"""The command `pgshepherd`: every verb parses, calls one service, prints, and ends with a documented exit code."""
