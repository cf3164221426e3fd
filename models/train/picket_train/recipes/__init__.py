"""One module per recipe: a data set, a protocol, a design, and the model that comes of them."""
