// The managed key's keyring file, for those who look after it.

import { Backend } from './backend.js';
import { Handle } from './handle.js';
import { address, bytes, produced, struct, text, type Pointer } from './native.js';
import { keyringStatus, type KeyringStatus } from './records.js';

/** What seals a keyring file, beside its mode. Node keeps a passphrase that is a string, and does not erase it. */
export interface SealingOptions {
  passphrase?: string | Uint8Array;
}

/**
 * A keyring file. **The keyring is the key: back it up.** Every call looks at the file anew, so any number of processes may use and
 * change one keyring at once.
 *
 *     const keyring = await Keyring.create('app.keyring', { passphrase });
 *     const store = await Store.create('app.keystead', { backends: [await keyring.backend()] });
 */
export class Keyring extends Handle {
  readonly path: string;

  private constructor(pointer: Pointer, path: string) {
    super(pointer, 'keystead_keyring_free');
    this.path = path;
  }

  /** Makes a new file, mode 0600, with one master key; its directory is there. A passphrase seals it. */
  static create(path: string, options: SealingOptions = {}): Promise<Keyring> {
    return sealed(options, async (given) => new Keyring(await produced('keystead_keyring_create', ...text(path), given), path));
  }

  /** Opens a file that is there, and checks that the passphrase opens it; rejects with `RevokedError` when it does not. */
  static open(path: string, options: SealingOptions = {}): Promise<Keyring> {
    return sealed(options, async (given) => new Keyring(await produced('keystead_keyring_open', ...text(path), given), path));
  }

  /** The backend `managed` on this keyring, opened as this one was. It makes no file, should this one be gone. */
  async backend(): Promise<Backend> {
    return Backend.taken(await this.produced('keystead_keyring_backend'));
  }

  /** How it stands now. */
  async status(): Promise<KeyringStatus> {
    return keyringStatus(await this.produced('keystead_keyring_read'));
  }

  /**
   * Adds a version of the master key, and answers its number. New wraps use it; older versions stay. To have data keys under it,
   * rotate the key `managed` of each organization.
   */
  async rotate(): Promise<number> {
    const version = Buffer.alloc(4);
    await this.call('keystead_keyring_rotate', version);
    return version.readUInt32LE();
  }

  /** Disables it: **everything under it is unreadable until `enable`**, in every process, from its next call on. */
  disable(): Promise<void> {
    return this.call('keystead_keyring_disable');
  }

  /** Enables it again. */
  enable(): Promise<void> {
    return this.call('keystead_keyring_enable');
  }

  /**
   * Puts it under another passphrase; without one, it is **not sealed any more**. Answers the keyring so opened. Whoever has the old
   * passphrase, this object and its backends too, is refused from the next call on.
   */
  reseal(options: SealingOptions): Promise<Keyring> {
    return sealed(options, async (given) => new Keyring(await this.produced('keystead_keyring_reseal', given), this.path));
  }

  /** Frees this handle now. The file stays, and backends of it go on. */
  close(): Promise<void> {
    return this.end();
  }

  /** For `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.end();
  }
}

async function sealed<T>(options: SealingOptions, use: (given: Buffer) => Promise<T>): Promise<T> {
  const [given, length] = options.passphrase === undefined ? [null, 0] : bytes(options.passphrase);
  // A passphrase of no bytes is refused, and not taken for none.
  const passphrase = options.passphrase !== undefined && given === null ? Buffer.alloc(1) : given;
  const held = [passphrase];
  try {
    return await use(struct('keystead_keyring_options', { passphrase: address(passphrase), passphrase_len: length }));
  } finally {
    held.length = 0; // only now may what the options point to go
  }
}
