"""The chart's dashboards and service levels as data: `python -m omni_cli.dashboards charts/omni` writes them there."""
