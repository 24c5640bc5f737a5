"""The detector: VLM, FS blocks, checkpoint. Free of imports: the node's process has no torch."""
