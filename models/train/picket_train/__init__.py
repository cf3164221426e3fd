"""Trains Picket's models: named recipes in, self-describing ONNX files and reports out."""

__version__ = "1.1.0"
