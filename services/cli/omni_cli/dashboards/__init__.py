"""The Grafana dashboards of the chart as data: `python -m omni_cli.dashboards FOLDER` writes them."""
