// Large values as streams of Node, in bounded memory.

import { Readable, Writable } from 'node:stream';
import { Member, type Family } from './handle.js';
import { bytes, look, struct, type Pointer } from './native.js';
import { versionInfo, type VersionInfo } from './records.js';

const PART_BYTES = 64 * 1024;

class Writer extends Member {
  constructor(pointer: Pointer, family: Family) {
    super(pointer, 'keystead_writer_free', family);
  }

  write(part: Uint8Array): Promise<void> {
    return this.call('keystead_writer_write', ...bytes(part));
  }

  async finish(): Promise<number> {
    const version = Buffer.alloc(4);
    await this.call('keystead_writer_finish', version);
    return version.readUInt32LE();
  }
}

/** Writes one value of up to 64 MiB. The version is there when the stream has finished; destroyed before, it leaves nothing. */
export class SecretWriteStream extends Writable {
  readonly #writer: Promise<Writer>;
  /** The number of the version, once it has finished. */
  version?: number;

  /** @internal */
  constructor(opened: Promise<Pointer>, family: Family) {
    super({ decodeStrings: true });
    this.#writer = opened.then((pointer) => new Writer(pointer, family));
    this.#writer.catch((error) => this.destroy(error));
  }

  /** @internal */
  override _write(part: Buffer, _encoding: string, callback: (error?: Error | null) => void): void {
    this.#writer.then((writer) => writer.write(part)).then(() => callback(), callback);
  }

  /** @internal */
  override _final(callback: (error?: Error | null) => void): void {
    this.#writer
      .then((writer) => writer.finish())
      .then((version) => {
        this.version = version;
        callback();
      }, callback);
  }

  /** @internal */
  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#writer.then((writer) => writer.close()).then(() => callback(error), (other) => callback(error ?? other));
  }
}

class Reader extends Member {
  constructor(pointer: Pointer, family: Family) {
    super(pointer, 'keystead_reader_free', family);
  }

  async info(): Promise<VersionInfo> {
    const memory = struct('keystead_version_info');
    return this.lend(async () => {
      await this.call('keystead_reader_info', memory);
      return versionInfo(look('keystead_version_info', memory));
    });
  }

  async read(room: Buffer): Promise<number> {
    return Number(await this.produced('keystead_reader_read', room, room.length));
  }
}

/** Reads one value. Every byte that it answers is authenticated. */
export class SecretReadStream extends Readable {
  readonly #reader: Promise<Reader>;

  /** @internal */
  constructor(opened: Promise<Pointer>, family: Family) {
    super({ highWaterMark: PART_BYTES });
    this.#reader = opened.then((pointer) => new Reader(pointer, family));
    this.#reader.catch((error) => this.destroy(error));
  }

  /** What is known of the version that is being read. */
  async info(): Promise<VersionInfo> {
    return (await this.#reader).info();
  }

  /** @internal */
  override _read(): void {
    const room = Buffer.allocUnsafeSlow(PART_BYTES);
    this.#reader
      .then((reader) => reader.read(room))
      .then(
        (length) => this.push(length > 0 ? room.subarray(0, length) : null),
        (error) => this.destroy(error),
      );
  }

  /** @internal */
  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#reader.then((reader) => reader.close()).then(() => callback(error), (other) => callback(error ?? other));
  }
}
