"""What is measured of a clip, and how it is put into words."""
