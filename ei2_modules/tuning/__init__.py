"""One-shot tuning: what is trained, the loop, and the state that a stopped one goes on from."""
