"""Kernels for what torch does slowly: the depthwise convolutions of a search block with all that is around them."""
