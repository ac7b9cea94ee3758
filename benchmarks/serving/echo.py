"""The upper bound: a gRPC server of the same kind that returns constant bytes for every call.

python -m benchmarks.serving.echo RESPONSE_FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc

from serving.core.event_loop import run_event_loop


class _Echo(grpc.GenericRpcHandler):
    def __init__(self, response: bytes) -> None:
        self._response = response

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            return self._response

        return grpc.unary_unary_rpc_method_handler(answer)


async def _serve(response: bytes) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(response),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"listening on 127.0.0.1:{port} echo\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    run_event_loop(_serve(Path(sys.argv[1]).read_bytes()))
