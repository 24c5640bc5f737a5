"""Baselines to compare with, each a `core.detection.Detector` (paper, Sec. V-B; docs/baselines.md).

A baseline is asked for by name, wherever a detector is: `baseline:zero-shot:FOLDER`,
`baseline:openai:gpt-4o,budget=200000`, `baseline:always-success`. No module here imports torch or
the OpenAI client before such a name is loaded, and nothing leaves the machine unless it is one of
`openai`, or names a repository of the hub.
"""
