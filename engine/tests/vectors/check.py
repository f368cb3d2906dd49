#!/usr/bin/env python3
"""Checks the vectors in this directory against implementations that the engine does not use.

    pip install cryptography
    python3 check.py            checks both files
    python3 check.py --write    computes blake3.json anew, then checks both

AES-256-GCM-SIV is OpenSSL's (3.2 or newer, through `cryptography`). BLAKE3 is written out below from its paper, plain
and slow.
"""

import json
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).parent

# ---- BLAKE3, after sections 2.1 to 2.3 of the paper ----

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT, KEYED_HASH, DERIVE_KEY_CONTEXT, DERIVE_KEY_MATERIAL = (1 << i for i in range(7))
# Columns, then diagonals.
MIXES = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def rotated(word, by):
    return (word >> by | word << (32 - by)) & 0xFFFFFFFF


def compress(chaining, block, counter, flags):
    """All 16 words that one compression gives; the first 8 are a chaining value."""
    message = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    state = [*chaining, *IV[:4], counter & 0xFFFFFFFF, counter >> 32, len(block), flags]
    for _ in range(7):
        for index, (a, b, c, d) in enumerate(MIXES):
            for word, first, second in ((message[2 * index], 16, 12), (message[2 * index + 1], 8, 7)):
                state[a] = (state[a] + state[b] + word) & 0xFFFFFFFF
                state[d] = rotated(state[d] ^ state[a], first)
                state[c] = (state[c] + state[d]) & 0xFFFFFFFF
                state[b] = rotated(state[b] ^ state[c], second)
        message = [message[index] for index in PERMUTATION]
    return [state[i] ^ state[i + 8] for i in range(8)] + [state[i + 8] ^ chaining[i] for i in range(8)]


def node(data, first_chunk, key, flags):
    """The last compression of the subtree over `data`, not yet done: (chaining value, block, counter, flags)."""
    if len(data) <= 1024:
        blocks = [data[at:at + 64] for at in range(0, len(data), 64)] or [b""]
        chaining = key
        for index, block in enumerate(blocks):
            block_flags = flags | (CHUNK_START if index == 0 else 0)
            if index + 1 == len(blocks):
                return chaining, block, first_chunk, block_flags | CHUNK_END
            chaining = compress(chaining, block, first_chunk, block_flags)[:8]
    chunks_left = 1 << (((len(data) - 1) // 1024).bit_length() - 1)
    halves = node(data[:1024 * chunks_left], first_chunk, key, flags), \
        node(data[1024 * chunks_left:], first_chunk + chunks_left, key, flags)
    block = b"".join(struct.pack("<8I", *compress(*half)[:8]) for half in halves)
    return key, block, 0, flags | PARENT


def blake3(data, length, key=IV, flags=0):
    chaining, block, _, flags = node(data, 0, key, flags)
    output = b""
    while len(output) < length:
        output += struct.pack("<16I", *compress(chaining, block, len(output) // 64, flags | ROOT))
    return output[:length]


def keyed_hash(key, data, length):
    return blake3(data, length, struct.unpack("<8I", key), KEYED_HASH)


def derive_key(context, data, length):
    context_key = blake3(context.encode(), 32, IV, DERIVE_KEY_CONTEXT)
    return blake3(data, length, struct.unpack("<8I", context_key), DERIVE_KEY_MATERIAL)


# ---- The vectors ----

PUBLISHED_KEY = "whats the Elvish word for friend"
PUBLISHED_CONTEXT = "BLAKE3 2019-12-27 16:29:52 test vectors context"
# All of test_vectors.json.
PUBLISHED_LENGTHS = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2048, 2049, 3072, 3073, 4096, 4097, 5120, 5121,
    6144, 6145, 7168, 7169, 8192, 8193, 16384, 31744, 102400)


def published_cases():
    for length in PUBLISHED_LENGTHS:
        data = bytes(index % 251 for index in range(length))
        yield {"input_len": length,
               "hash": blake3(data, 131).hex(),
               "keyed_hash": keyed_hash(PUBLISHED_KEY.encode(), data, 131).hex(),
               "derive_key": derive_key(PUBLISHED_CONTEXT, data, 131).hex()}


def pairs():
    counted = bytes(range(64))
    for label in ("keystead 1 epoch wrapping key", "keystead 1 content key"):
        for key, context in ((counted[:32], counted[32:]), (bytes(32), b"\xff" * 32)):
            output = derive_key(label, key + context, 64)
            yield {"label": label, "key": key.hex(), "context": context.hex(),
                   "derived_key": output[:32].hex(), "commitment": output[32:].hex()}


def place_tags():
    store_id = bytes(range(16))
    key = derive_key("keystead 1 place of a row", store_id, 32)
    for table, row_key, body in ((1, b"", b""), (2, b"row key", b"body"), (255, bytes(range(80)), bytes(range(256)) * 9)):
        message = bytes([table]) + struct.pack("<I", len(row_key)) + row_key + body
        yield {"store_id": store_id.hex(), "table": table, "row_key": row_key.hex(), "body": body.hex(),
               "tag": keyed_hash(key, message, 16).hex()}


def chain_hashes():
    for label in ("keystead 1 audit chain", "keystead 1 epoch chain"):
        previous = bytes(32)
        for parts in ((b"first record",), (b"", b"second", b"record")):
            message = previous + b"".join(struct.pack("<Q", len(part)) + part for part in parts)
            found = derive_key(label, message, 32)
            yield {"label": label, "previous": previous.hex(), "parts": [part.hex() for part in parts],
                   "hash": found.hex()}
            previous = found


def context_hashes():
    for canonical in (b"", bytes(range(200))):
        yield {"canonical": canonical.hex(), "hash": derive_key("keystead 1 wrap context", canonical, 32).hex()}


def blake3_vectors():
    return {"blake3": {"context": PUBLISHED_CONTEXT, "key": PUBLISHED_KEY, "cases": list(published_cases())},
            "keystead": {"pairs": list(pairs()), "place_tags": list(place_tags()),
                         "chain_hashes": list(chain_hashes()), "context_hashes": list(context_hashes())}}


def check_rfc8452():
    from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

    cases = json.loads((HERE / "rfc8452.json").read_text())
    for kind, count in (("aes_256", 24), ("counter_wrap", 2)):
        assert len(cases[kind]) == count
        for index, case in enumerate(cases[kind]):
            key, nonce, aad, plaintext, result = (
                bytes.fromhex(case[name]) for name in ("key", "nonce", "aad", "plaintext", "result"))
            assert AESGCMSIV(key).encrypt(nonce, plaintext, aad) == result, f"{kind} {index}"


if __name__ == "__main__":
    path = HERE / "blake3.json"
    if "--write" in sys.argv[1:]:
        path.write_text(json.dumps(blake3_vectors(), indent=1) + "\n")
    assert json.loads(path.read_text()) == blake3_vectors(), "blake3.json"
    print("blake3.json holds")
    check_rfc8452()
    print("rfc8452.json holds")
