"""Judging recorded episodes, and measuring how well it is done."""
