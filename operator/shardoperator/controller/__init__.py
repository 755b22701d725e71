"""The loop: observe, plan, apply, write status.  The same for every platform."""
