"""gRPC and the wire messages: the only part of the project that knows them, together with the servicers."""
