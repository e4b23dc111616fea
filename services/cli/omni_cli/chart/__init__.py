"""What of charts/omni is generated: from the models' descriptions, the services' settings, and the values' comments."""
