"""Configuration: one YAML file describes one accelerator."""
