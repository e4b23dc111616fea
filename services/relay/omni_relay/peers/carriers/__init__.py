"""How pieces of tensors cross to another pod: one module for each way, all behind `carrier`'s two protocols."""
