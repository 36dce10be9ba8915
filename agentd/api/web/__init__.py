"""The page: server-rendered HTML that reads without scripts, and acts by plain forms."""
