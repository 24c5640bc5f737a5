"""People label episodes: a page on this machine, montage after montage, by keyboard."""
