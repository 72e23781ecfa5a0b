"""One file a pack. They are not collected with the other tests."""
