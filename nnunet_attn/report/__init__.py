"""The report of a comparison: the document, its tables and figures, overlays of predictions."""
