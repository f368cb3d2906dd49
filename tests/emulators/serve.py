"""Serves one AWS emulator on a free loopback port until its standard input closes.

Usage: serve.py moto|ministack

The first line on standard output is "port N". The process ends when whoever started it goes away, however that
happens: the pipe on its standard input then closes.
"""

import os
import socket
import sys
import threading


def announce(port):
    print(f"port {port}", flush=True)


def end_with_parent():
    def wait():
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def serve_moto():
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    # Connections stay open between requests, as with AWS.
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    announce(server.server_port)
    server.serve_forever()


def serve_ministack():
    os.environ.update(
        {
            # Signatures, IAM policies, key policies and trust policies are checked.
            "AUTH": "true",
            # The root user of every account signs with the account's number and this secret.
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "SERVICES": "kms,sts,iam",
            # Would listen on every interface.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
        }
    )
    import asyncio

    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from ministack.app import app

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    port = listener.getsockname()[1]
    os.environ["GATEWAY_PORT"] = str(port)
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    announce(port)
    asyncio.run(serve(app, config))


if __name__ == "__main__":
    end_with_parent()
    {"moto": serve_moto, "ministack": serve_ministack}[sys.argv[1]]()
