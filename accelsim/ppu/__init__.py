"""The post-processing unit: accumulators become output codes."""
