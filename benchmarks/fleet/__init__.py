"""Four servers with one Redis behind a load balancer: throughput, cost of a list, swaps, and failures."""
