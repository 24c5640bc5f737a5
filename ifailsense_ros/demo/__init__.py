"""The demo: twelve recorded episodes through the real node, in processes of their own."""
