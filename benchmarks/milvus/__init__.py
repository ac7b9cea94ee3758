"""Candidates searched by Milvus, beside FAISS in process: lists, latencies, freshness."""
