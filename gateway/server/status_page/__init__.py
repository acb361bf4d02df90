"""The live page on the administration listener: what it shows, and the files it is made of."""
