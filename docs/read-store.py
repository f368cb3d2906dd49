"""Reads a store by format.md alone: an independent reader, to check that page against a file.

    pip install blake3 cryptography
    python docs/read-store.py STORE KEYRING [KEYRING …]

STORE is closed, or a copy as a crash leaves it; each KEYRING is an unsealed keyring file of the managed backend. It checks every
tag, chain and commitment that it meets, opens every value, and prints what there is, never a value. It ends with an
AssertionError where the file is not as the page says. It writes nothing.
"""

import struct
import sys

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

BLOCK, JOURNAL, SEGMENTS, SEGMENT = 4096, 65536, 4259840, 1 << 20
TABLES = (
    "store organizations organization_names heads keys epochs secrets versions data_keys chunks uploads deletions "
    "rewrap_jobs audit cells_erasing cells_free"
).split()


def u16(data, at):
    return struct.unpack_from("<H", data, at)[0]


def u32(data, at):
    return struct.unpack_from("<I", data, at)[0]


def u64(data, at):
    return struct.unpack_from("<Q", data, at)[0]


def be32(number):
    return struct.pack(">I", number)


def be64(number):
    return struct.pack(">Q", number)


def derive_key(label, data, length=32):
    return blake3(data, derive_key_context=label).digest(length=length)


def keyed(key, data, length):
    return blake3(data, key=key).digest(length=length)


def unseal(key, nonce, sealed, associated):
    if len(sealed) == 16:  # the Python binding takes no empty plaintext; such a body is checked by nothing here
        return b""
    return AESGCMSIV(key).decrypt(nonce, sealed, associated)


class Container:
    def __init__(self, data):
        self.data = data
        copies = [copy for copy in (self.header(0), self.header(BLOCK)) if copy]
        assert copies, "no valid copy of the header"
        _, self.store_id, self.blocks, self.cell_segments = max(copies)
        numbers = range(self.blocks // 255 + 1 + len(self.cell_segments))
        self.page_segments = [number for number in numbers if number not in self.cell_segments]
        label = "keystead container v1: "
        self.block_key = derive_key(label + "tag of a block", self.store_id)
        self.redb_key = derive_key(label + "seal of the header of redb", self.store_id)
        self.cell_key = derive_key(label + "tag of a shred cell", self.store_id)
        self.head_key = derive_key(label + "tag of the head of a journal record", self.store_id)
        self.record_key = derive_key(label + "tag of a journal record", self.store_id)

    def header(self, at):
        copy = self.data[at : at + BLOCK]
        if copy[:8] != b"KEYSTEAD" or blake3(copy[:4064]).digest() != copy[4064:]:
            return None
        fixed = (u32(copy, 8), u32(copy, 12), u64(copy, 40), u64(copy, 48), u64(copy, 56))
        assert fixed == (1, BLOCK, JOURNAL, SEGMENTS - JOURNAL, SEGMENT)
        segments = [u32(copy, 80 + 4 * index) for index in range(u32(copy, 72))]
        return u64(copy, 16), copy[24:40], u64(copy, 64), segments

    def block(self, number):
        assert number < self.blocks
        start = SEGMENTS + self.page_segments[number // 255] * SEGMENT
        at = start + BLOCK * (1 + number % 255)
        block = self.data[at : at + BLOCK]
        if number == 0:
            assert keyed(self.redb_key, block[:480], 32) == block[480:512], "redb's header does not fit its seal"
            return block[:480].ljust(BLOCK, b"\0")
        at = start + 16 * (number % 255)
        tag = keyed(self.block_key, block + struct.pack("<Q", number), 16)
        assert tag == self.data[at : at + 16], f"block {number} does not fit its tag"
        return block

    def cell(self, number):
        if number < 896:
            at = 8192 + 64 * number
        else:
            segment = self.cell_segments[(number - 896) // 16384]
            at = SEGMENTS + segment * SEGMENT + 64 * ((number - 896) % 16384)
        cell = self.data[at : at + 64]
        assert cell[32:40] == bytes(8)
        assert keyed(self.cell_key, struct.pack("<Q", number) + cell[:32], 24) == cell[40:], f"cell {number}"
        return cell[:32]

    def records(self, generation):
        at, end = JOURNAL, SEGMENTS
        for sequence in range(end):
            head = self.data[at : at + 24]
            if at >= end or head[:4] != b"KJRN" or (u64(head, 8), u64(head, 16)) != (generation, sequence):
                return
            payload = self.data[at + 72 : at + 72 + u32(head, 4)]
            if keyed(self.head_key, head, 16) != self.data[at + 24 : at + 40]:
                return
            if keyed(self.record_key, head + payload, 32) != self.data[at + 40 : at + 72]:
                return
            yield payload
            at += (72 + len(payload) + 511) // 512 * 512


class Pages:
    """As much of redb's file format 3 as is needed."""

    def __init__(self, container):
        self.container = container
        header = container.block(0)
        assert header[:9] == b"redb\x1a\x0a\xa9\x0d\x0a" and u32(header, 12) == BLOCK
        self.header_pages, self.region_pages = u32(header, 16), u32(header, 20)
        slot = 64 + 128 * (header[9] & 1)
        assert header[slot] == 3, "file format of redb"
        self.root = u64(header, slot + 8)

    def page(self, number):
        order, region = number >> 59, number >> 20 & 0xFFFFF
        index = number & 0xFFFFF >> order
        first = 1 + region * (self.header_pages + self.region_pages) + self.header_pages + (index << order)
        return b"".join(self.container.block(first + n) for n in range(1 << order))

    def rows(self, root):
        page = self.page(root)
        count = u16(page, 2)
        if page[0] == 2:
            for child in range(count + 1):
                yield from self.rows(u64(page, 8 + 16 * (count + 1) + 8 * child))
            return
        ends = [4 + 8 * count] + [u32(page, 4 + 4 * n) for n in range(2 * count)]
        pieces = [page[begin:end] for begin, end in zip(ends, ends[1:])]
        yield from zip(pieces[:count], pieces[count:])

    def tables(self):
        tables = {}
        for name, row in self.rows(self.root):
            tables[name.decode()] = dict(self.rows(u64(row, 10))) if row[9] else {}
        return tables


class Postcard:
    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, length):
        self.at += length
        assert self.at <= len(self.data)
        return self.data[self.at - length : self.at]

    def number(self):
        value = shift = 0
        while True:
            (byte,) = self.raw(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def blob(self):
        return self.raw(self.number())

    def text(self):
        return self.blob().decode()

    def option(self, read):
        return read() if self.raw(1) == b"\1" else None

    def list(self, read):
        return [read() for _ in range(self.number())]

    def end(self):
        assert self.at == len(self.data), "bytes are left over"


def keyring(path):
    data = open(path, "rb").read()
    assert data[:8] == b"KSKEYRNG" and data[10] == 0, "an unsealed keyring"
    assert blake3(data[:-32]).digest() == data[-32:]
    entries = [data[104 + 44 * n : 148 + 44 * n] for n in range(u32(data, 28))]
    return {f"managed:{data[12:28].hex()}:v{u32(entry, 0)}": entry[12:] for entry in entries}


class Store:
    def __init__(self, path, keyrings):
        self.container = Container(open(path, "rb").read())
        self.id = self.container.store_id
        self.masters = {name: key for path in keyrings for name, key in keyring(path).items()}
        self.place_key = derive_key("keystead 1 place of a row", self.id)
        self.tables = Pages(self.container).tables()
        assert sorted(self.tables) == sorted(TABLES)
        generation = u64(self.tables["store"][b"journal_generation"], 0)
        self.replayed = 0
        for payload in self.container.records(generation):
            self.apply(payload)
            self.replayed += 1

    def apply(self, payload):
        at = 0
        while at < len(payload):
            table = self.tables[TABLES[payload[at] & 127]]
            removed, key_end = payload[at] & 128, at + 3 + u16(payload, at + 1)
            key, at = payload[at + 3 : key_end], key_end
            if removed:
                table.pop(key, None)
            else:
                at = key_end + 4 + u32(payload, key_end)
                table[key] = payload[key_end + 4 : at]

    def check_place(self, table, key, tagged):
        place = bytes([TABLES.index(table)]) + struct.pack("<I", len(key)) + key + tagged[:-16]
        assert keyed(self.place_key, place, 16) == tagged[-16:], f"a row of {table} does not fit its place"

    def record(self, table, key):
        row = self.tables[table][key]
        assert row[0] == 1
        self.check_place(table, key, row)
        return Postcard(row[1:-16])

    def print(self):
        print(f"store {self.id.hex()}, {self.replayed} records of the journal")
        for key in sorted(self.tables["organizations"]):
            record = self.record("organizations", key)
            name = record.text()
            record.number()
            record.end()
            self.organization(key, name)

    def organization(self, org, name):
        head = self.record("heads", org)
        _, secrets, _, audit_sequence = (head.number() for _ in range(4))
        audit_hash, default = head.raw(32), head.text()
        active, last = head.number(), head.number()
        epochs_hash = head.raw(32)
        live = head.list(lambda: (head.number(), head.number(), head.number()))
        head.end()
        print(f"organization {name!r}: default key {default!r}, {secrets} secrets, {audit_sequence} audit records")
        self.audit(org, audit_sequence, audit_hash)
        references = {epoch: count for epoch, count, _ in live}
        keys = self.epochs(org, name, last, epochs_hash, references, active)
        found = {}
        for row_key in [key for key in self.tables["secrets"] if key[:4] == org]:
            for epoch in self.secret(org, row_key, keys):
                found[epoch] = found.get(epoch, 0) + 1
        assert found == {epoch: count for epoch, count in references.items() if count}, "counts of references"

    def audit(self, org, last, newest):
        previous = bytes(32)
        for sequence in range(1, last + 1):
            key = org + be64(sequence)
            row = self.tables["audit"][key]
            previous = self.chain("keystead 1 audit chain", previous, [key, row[:-32]])
            assert previous == row[-32:], f"audit record {sequence}"
        assert previous == newest

    @staticmethod
    def chain(label, previous, parts):
        return derive_key(label, previous + b"".join(struct.pack("<Q", len(part)) + part for part in parts))

    def epochs(self, org, name, last, newest, references, active):
        previous, keys = bytes(32), {}
        for number in range(1, last + 1):
            key = org + be32(number)
            record = self.record("epochs", key)
            opened_under, _, _ = record.text(), record.text(), record.number()
            record.option(record.text), record.option(record.text)
            cause = record.number()
            commitment, before = record.raw(32), record.raw(32)
            opened = record.data[: record.at]
            assert before == previous
            previous = self.chain("keystead 1 epoch chain", before, [key, opened])
            named = record.raw(32)
            assert cause == 6 or named == previous, f"epoch {number}"
            previous = named
            read = lambda: (record.text(), record.text(), record.number(), record.blob(), record.number())
            wraps = record.list(read)
            retired = record.option(record.number)
            record.end()
            assert bool(wraps) != bool(retired)
            state = "retired" if retired else "active" if number == active else "live"
            print(f"  epoch {number} {opened_under} {state}, {references.get(number, 0)} data keys")
            for wrap in wraps:
                epoch_key = self.unwrap(org, name, number, wrap)
                context = self.id + org + be32(number) + bytes(8)
                derived = derive_key("keystead 1 epoch wrapping key", epoch_key + context, 64)
                assert derived[32:] == commitment
                keys[number] = derived[:32]
        assert previous == newest
        return keys

    def unwrap(self, org, name, number, wrap):
        key, key_id, cell, sealed, _ = wrap
        place = b"keystead 1 wrap" + self.id + org + be32(number) + key.encode()
        opened = Postcard(unseal(self.container.cell(cell), bytes(12), sealed, place))
        blob, _ = opened.blob(), opened.blob()
        opened.end()
        pairs = [("keystead:epoch", str(number)), ("keystead:organization", name), ("keystead:store", self.id.hex())]
        words = [word.encode() for pair in pairs for word in pair]
        canonical = struct.pack("<I", 3) + b"".join(struct.pack("<I", len(word)) + word for word in words)
        assert blob[0] == 1 and key_id in self.masters, f"no keyring given has {key_id}"
        wrapping = derive_key("keystead managed keyring 2025 wrapping key v1", self.masters[key_id] + blob[1:17])
        return unseal(wrapping, blob[17:29], blob[29:], canonical)

    def secret(self, org, row_key, keys):
        record, path = self.record("secrets", row_key), row_key[4:]
        secret_id, latest = record.number(), record.number()
        for version in range(1, latest + 1):
            key = org + be64(secret_id) + be32(version)
            row = self.tables["versions"][key]
            assert row[0] == 1
            length = u32(row, 1)
            header_bytes, body = row[5 : 5 + length], row[21 + length :]
            self.check_place("versions", key, row[: 21 + length])
            header = Postcard(header_bytes)
            header.number()
            size = header.number()
            header.option(header.text), header.list(lambda: (header.text(), header.text()))
            kind = header.number()
            deleted = " deleted" if key in self.tables["deletions"] else ""
            print(f"  {path.decode()} version {version}: {size} bytes{ {2: ' destroyed', 3: ' lost'}.get(kind, deleted)}")
            if kind >= 2:
                assert not body and key not in self.tables["data_keys"]
                continue
            commitment = header.raw(32)
            value_id, chunks = (header.raw(16), header.number()) if kind == 1 else (None, 0)
            header.end()

            row = self.tables["data_keys"][key]
            assert row[0] == 1 and len(row) == 65
            epoch = u32(row, 1)
            data_key = unseal(keys[epoch], row[5:17], row[17:], b"keystead 1 data key" + self.id + key + be32(epoch))
            derived = derive_key("keystead 1 content key", data_key + self.id + (value_id or key), 64)
            assert derived[32:] == commitment
            place = b"keystead 1 value" + self.id + key + struct.pack("<H", len(path)) + path + header_bytes
            value = unseal(derived[:32], b"\xff" * 12, body, place)
            for index in range(chunks):
                nonce = bytes(7) + be32(index) + bytes([index + 1 == chunks])
                sealed = self.tables["chunks"][org + value_id + be32(index)]
                value += unseal(derived[:32], nonce, sealed, b"keystead 1 chunk" + self.id + org + value_id)
            assert len(value) == size
            yield epoch


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    Store(sys.argv[1], sys.argv[2:]).print()
