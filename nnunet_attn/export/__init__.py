"""Trained models as ONNX files that predict without torch and nnU-Net."""
