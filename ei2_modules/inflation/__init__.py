"""What an image UNet becomes a video UNet with, and the file of tuned weights that fits it."""
