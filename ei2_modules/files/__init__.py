"""Files on disk that are whole or not there, and the fingerprint that tells models apart."""
