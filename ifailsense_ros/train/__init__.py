"""The two training stages of the paper (Sec. IV-B), and stage 0 for small bases made here."""
