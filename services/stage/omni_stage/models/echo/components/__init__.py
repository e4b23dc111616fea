"""The part that computes. In a real model's folder, the only one that may import torch."""
