"""Read and write files safely: restricted unpickling, checked zip archives, bounded JSON and YAML.

Knows no model and no MMEngine.
"""
