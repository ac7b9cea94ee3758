"""Speed and memory of evaluation over the whole catalogue, beside RecTools' and RecBole's."""
