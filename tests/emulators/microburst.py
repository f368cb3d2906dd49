"""Serves microburst, a proxy that makes faults in the form of AWS's own, on a free loopback port until standard input closes.

Usage: microburst.py URL, of what stands behind it, such as http://127.0.0.1:5555

The first line on standard output that begins with "{" is JSON: "peer", its name and version,
and "port". Rules are set, and what they did is read, under /_microburst/ on the same port.
"""

import importlib.metadata
import json
import os
import socket
import sys
import threading

from aiohttp import web
from microburst.app import make_app
from microburst.core.pipeline import Microburst


def end_with_parent():
    def wait():
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def main():
    end_with_parent()
    listening = socket.create_server(("127.0.0.1", 0))
    peer = f"microburst {importlib.metadata.version('microburst')}"
    print(json.dumps({"peer": peer, "port": listening.getsockname()[1]}), flush=True)
    app = make_app(Microburst(sys.argv[1], resign=False))
    web.run_app(app, sock=listening, print=None, access_log=None)


if __name__ == "__main__":
    main()
