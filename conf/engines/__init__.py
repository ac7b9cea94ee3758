"""Settings of the engines that take over past one machine.

Public: `milvus`.
"""
