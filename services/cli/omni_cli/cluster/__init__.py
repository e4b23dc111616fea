"""A release of the chart as the cluster's API server tells of it. Everything here reads; nothing is ever changed."""
