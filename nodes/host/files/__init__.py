"""Where tuned weights lie, and videos that loop."""
