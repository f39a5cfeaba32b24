"""Kubernetes manifests of a project: how they are made, and how they are checked without a cluster."""
