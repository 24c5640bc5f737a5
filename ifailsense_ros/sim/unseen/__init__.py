"""The unseen world: Meta-World's Sawyer (MIT), never used to train the shipped detector.

It plays the part that AHA's RLBench plays to CALVIN in the paper (Sec. V-C): another arm, other
objects, other cameras. Scenes and scripted policies are those of the `metaworld` package; what is
drawn, judged and said is ours.
"""

SOURCE = "metaworld"
"""`EpisodeRow.source` of every episode of this world."""

UNSEEN_VERSION = "metaworld-1"
"""`EpisodeRow.generator_version`: changes when the same seed no longer makes the same episode."""
