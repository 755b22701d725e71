"""The other platform: one machine without Kubernetes.  The same core; children are processes and files."""
