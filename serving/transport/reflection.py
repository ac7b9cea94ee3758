"""Server reflection: the service's contract for grpcurl and other tools, under both names of the protocol.

`grpc.reflection.v1` has the messages of `grpc.reflection.v1alpha` under another package. grpcio-reflection
provides only the latter; tools try the former first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

_METHOD: Final = "ServerReflectionInfo"
_V1ALPHA: Final = reflection.SERVICE_NAME
_V1: Final = _V1ALPHA.replace("v1alpha", "v1")


def enable_reflection(services: Iterable[str], server: grpc.aio.Server) -> None:
    """Serve reflection of services, and of reflection itself, as v1 and v1alpha.

    Args:
        services: fully qualified names.
        server: not started yet.
    """
    servicer = reflection.aio.ReflectionServicer((*services, _V1, _V1ALPHA), pool=_pool())
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, {_METHOD: handler}) for name in (_V1, _V1ALPHA))
    )


def _pool() -> descriptor_pool.DescriptorPool:
    """Return the process's descriptor pool, with v1 derived from v1alpha."""
    pool = descriptor_pool.Default()
    try:
        pool.FindFileContainingSymbol(_V1)
    except KeyError:
        v1alpha = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(v1alpha)
        text = text_format.MessageToString(v1alpha).replace("v1alpha", "v1")
        pool.Add(text_format.Parse(text, descriptor_pb2.FileDescriptorProto()))
    return pool
