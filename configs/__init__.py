"""The run configurations, one readable YAML file per run."""
