"""Read and write files safely: atomic writes, restricted unpickling, checked zip, JSON and YAML.

Imports no model and no MMEngine.
"""
