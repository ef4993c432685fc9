"""The options of a mount, from every place where a user can set them."""
