"""Kernels of the hidden path of a search block: mixed depthwise, batch norm and ReLU in few passes over memory."""
