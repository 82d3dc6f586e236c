"""jaxdistill: distil a large text data set into a tiny synthetic one that trains a model almost as well."""

__version__ = "0.1.0"
