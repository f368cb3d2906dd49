"""Serves one AWS emulator on a free loopback port until its standard input closes.

Usage: aws.py moto|ministack [DIRECTORY PORT HTTPS_PORT]

ministack's keys, users and roles outlive the process if it is given a directory: they are written there before a change is answered,
and read when the next one is started with the same directory and ports.

The first line on standard output that begins with "{" is JSON: "peer", the emulator's name and version, "port" for plain
HTTP, and from ministack also "https_port" and "certificate", the PEM text of a certificate for 127.0.0.1 that is made
anew each time. The process ends when whoever started it goes away, however that happens: the pipe on its standard input then closes.

moto is corrected in one place, Decrypt with a KeyId: see `correct_decrypt`. Everything else is as it comes.
"""

import datetime
import importlib.metadata
import ipaddress
import json
import os
import socket
import sys
import tempfile
import threading


def announce(emulator, **facts):
    peer = f"{emulator} {importlib.metadata.version(emulator)}"
    print(json.dumps({"peer": peer, **facts}), flush=True)


def end_with_parent():
    def wait():
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def correct_decrypt():
    """Has moto's Decrypt refuse a blob of another key by the errors of AWS's reference
    (https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html).

    A blob of moto's begins with its key's id in clear. Where that is not the key that was asked for, moto says AccessDeniedException,
    which AWS says of grants alone. The reference has, for "the specified KMS key cannot decrypt the data" since the blob is another
    key's, IncorrectKeyException; and for a blob that is "corrupted, missing, or otherwise invalid", InvalidCiphertextException. A blob
    whose id is no key's is such a one. Without a KeyId nothing is changed: there AWS says AccessDeniedException, too.
    """
    from moto.core.exceptions import JsonRESTError
    from moto.kms.exceptions import AccessDeniedException, InvalidCiphertextException
    from moto.kms.models import KmsBackend

    as_it_comes = KmsBackend.decrypt

    def decrypt(self, ciphertext_blob, encryption_context, key_id=None):
        if key_id is not None:
            asked = self.any_id_to_key_id(key_id).encode()
            of_another = any(ciphertext_blob.startswith(key.encode()) for key in self.keys if key.encode() != asked)
            if of_another:
                raise JsonRESTError("IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")
        try:
            return as_it_comes(self, ciphertext_blob, encryption_context, key_id)
        except AccessDeniedException:
            if key_id is None:
                raise
            raise InvalidCiphertextException() from None

    KmsBackend.decrypt = decrypt


def serve_moto():
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    correct_decrypt()
    # Connections stay open between requests, as with AWS.
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    announce("moto", port=server.server_port)
    server.serve_forever()


def serve_ministack(directory=None, plain_port=0, encrypted_port=0):
    if directory is not None:
        os.environ.update({"PERSIST_STATE": "1", "STATE_DIR": directory})
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

    plain, encrypted = listener(int(plain_port)), listener(int(encrypted_port))
    os.environ["GATEWAY_PORT"] = str(port(plain))
    certificate, key = self_signed()
    config = Config()
    config.insecure_bind = [f"fd://{plain.fileno()}"]
    config.bind = [f"fd://{encrypted.fileno()}"]
    with tempfile.NamedTemporaryFile() as certfile, tempfile.NamedTemporaryFile() as keyfile:
        certfile.write(certificate)
        certfile.flush()
        keyfile.write(key)
        keyfile.flush()
        config.certfile, config.keyfile = certfile.name, keyfile.name
        # Read here; the files go at the end of the block.
        context = config.create_ssl_context()
    config.create_ssl_context = lambda: context
    announce("ministack", port=port(plain), https_port=port(encrypted), certificate=certificate.decode())
    asyncio.run(serve(app if directory is None else keeping(app), config))


def keeping(app):
    """The app, with its state written before an answer begins. By itself it does that when it ends in good order."""
    from ministack.app import _build_persistence_save_dict
    from ministack.core.persistence import save_all

    async def keep(scope, receive, send):
        target = dict(scope.get("headers") or ()).get(b"x-amz-target", b"")

        async def save_and_send(message):
            if message["type"] == "http.response.start" and not target.endswith((b".Encrypt", b".Decrypt")):
                save_all(_build_persistence_save_dict())
            await send(message)

        await app(scope, receive, save_and_send)

    return keep


def listener(port):
    return socket.create_server(("127.0.0.1", port), backlog=128)


def port(listening):
    return listening.getsockname()[1]


def self_signed():
    """A certificate that only who trusts this very one accepts, and its key, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "emulator")])
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
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


if __name__ == "__main__":
    end_with_parent()
    {"moto": serve_moto, "ministack": serve_ministack}[sys.argv[1]](*sys.argv[2:])
