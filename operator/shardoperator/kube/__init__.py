"""The Kubernetes API: the only importer of the package kubernetes.

Invariant: every request has a time limit, and every failure is a KubernetesError; no answer of the API is taken for more than it says.
"""
