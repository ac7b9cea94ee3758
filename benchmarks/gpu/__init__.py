"""Every part of the engine on the CPU and on the GPU of one machine."""
