"""What a request means: from pictures and bits to tensors, and from tensors to answers. No HTTP here, no threads."""
