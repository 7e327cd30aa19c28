"""The synthetic factory, the losses and the loop that trains the network."""
