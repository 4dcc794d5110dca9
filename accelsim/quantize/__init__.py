"""The quantizer: a float network and a choice of number formats go in, a trace comes out."""
