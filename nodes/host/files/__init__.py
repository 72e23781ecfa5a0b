"""Where tuned weights lie."""
