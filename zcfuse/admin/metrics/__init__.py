"""The status document as Prometheus metrics."""
