"""The status document, and the socket that a daemon serves it on."""
