"""The wire contract: proto files and the code generated from them."""
