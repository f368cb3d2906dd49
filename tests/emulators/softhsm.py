"""The owner's side of the keys on a SoftHSM token, and a client of it that shares no code with the backend.

    python softhsm.py MODULE TOKEN PIN COMMAND JSON

One command, in a process of its own as the owner's tools are; SOFTHSM2_CONF says where the tokens are. What it answers is one
line of JSON. Wraps are read and made by what the documentation of the backend says about them: AES-GCM with the context's
canonical bytes as associated data, or AES key wrap of the frame.
"""

import hashlib
import json
import os
import sys

import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, MechanismFlag, ObjectClass

MAGIC = b"KSTDP11\x01"
USES = {
    "encrypt": MechanismFlag.ENCRYPT,
    "decrypt": MechanismFlag.DECRYPT,
    "wrap": MechanismFlag.WRAP,
    "unwrap": MechanismFlag.UNWRAP,
}


def canonical(context):
    def number(n):
        return n.to_bytes(4, "little")

    out = number(len(context))
    for name, value in sorted((n.encode(), v.encode()) for n, v in context.items()):
        out += number(len(name)) + name + number(len(value)) + value
    return out


def frame(context, key):
    text = MAGIC + hashlib.sha256(canonical(context)).digest() + len(key).to_bytes(2, "little") + key
    return text + bytes(-len(text) % 8)


def unframe(context, text):
    assert text[:8] == MAGIC, "no frame"
    assert text[8:40] == hashlib.sha256(canonical(context)).digest(), "the frame of another context"
    length = int.from_bytes(text[40:42], "little")
    assert frame(context, text[42 : 42 + length]) == text, "a frame that is not exact"
    return text[42 : 42 + length]


PASSING = {Attribute.TOKEN: False, Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}


def find(session, about):
    wanted = {Attribute.LABEL: about["label"], Attribute.CLASS: ObjectClass.SECRET_KEY}
    if "id" in about:
        wanted[Attribute.ID] = bytes.fromhex(about["id"])
    (key,) = session.get_objects(wanted)
    return key


def generate(session, about):
    uses = MechanismFlag(0)
    for use in about.get("uses", USES):
        uses |= USES[use]
    session.generate_key(
        KeyType.AES, about.get("bits", 256), label=about["label"], id=bytes.fromhex(about["id"]), store=True, capabilities=uses
    )


def allow(session, about):
    """Switches uses of a key on or off."""
    key = find(session, about)
    for use, is_on in about["uses"].items():
        key[getattr(Attribute, use.upper())] = is_on


def destroy(session, about):
    find(session, about).destroy()


def unwrap(session, about):
    key = find(session, about)
    blob, metadata = bytes.fromhex(about["blob"]), bytes.fromhex(about["metadata"])
    assert metadata[0] == 1, "another version"
    if metadata[1] == 1:
        parameters = GCMParams(metadata[2:], aad=canonical(about["context"]), tag_bits=128)
        return key.decrypt(blob, mechanism=Mechanism.AES_GCM, mechanism_param=parameters).hex()
    assert metadata[1:] == b"\x02", "an unknown mechanism"
    passing = key.unwrap_key(
        ObjectClass.SECRET_KEY, KeyType.GENERIC_SECRET, blob, mechanism=Mechanism.AES_KEY_WRAP, template=PASSING
    )
    return unframe(about["context"], passing[Attribute.VALUE]).hex()


def wrap(session, about):
    key, plaintext = find(session, about), bytes.fromhex(about["plaintext"])
    if about["mechanism"] == "aes-gcm":
        iv = os.urandom(12)
        parameters = GCMParams(iv, aad=canonical(about["context"]), tag_bits=128)
        blob = key.encrypt(plaintext, mechanism=Mechanism.AES_GCM, mechanism_param=parameters)
        return {"blob": blob.hex(), "metadata": (b"\x01\x01" + iv).hex()}
    passing = session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
            Attribute.VALUE: frame(about["context"], plaintext),
            **PASSING,
        }
    )
    return {"blob": key.wrap_key(passing, mechanism=Mechanism.AES_KEY_WRAP).hex(), "metadata": "0102"}


COMMANDS = {"generate": generate, "allow": allow, "destroy": destroy, "wrap": wrap, "unwrap": unwrap}


def main():
    module, label, pin, command, about = sys.argv[1:]
    token = pkcs11.lib(module).get_token(token_label=label)
    with token.open(user_pin=pin, rw=True) as session:
        print(json.dumps(COMMANDS[command](session, json.loads(about))))


main()
