"""How good results are: figures against a reference."""
