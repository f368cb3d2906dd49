// The backends that a store is opened with: plugins, and the managed keyring.

import { resolve } from 'node:path';
import { Handle } from './handle.js';
import { address, done, now, produced, struct, text, zeroTerminated, type Pointer } from './native.js';

/** How a plugin is checked before a byte of it runs, and what it is given. */
export interface PluginOptions {
  /** The BLAKE3 digest of the bytes that are allowed, as `b3sum` prints it, or several. */
  digest?: string | string[];
  /** Allows *whatever is at the path*. For development. */
  dangerouslyWithoutDigest?: boolean;
  /** A larger file is refused; 512 MiB unless told otherwise. */
  sizeMaxBytes?: number;
  /** The name by which stored keys refer to this backend; without, the backend's own name. */
  name?: string;
  /** The backend's settings: endpoints, files, credentials. Trusted, never stored. */
  settings?: Record<string, unknown>;
  /**
   * The plugin is loaded when a key of it is first used, not now, and is given a name; of many that are registered, those that no
   * key needs cost nothing. What refuses it is then the error of that use.
   */
  atFirstUse?: boolean;
}

/** Where the managed key is. */
export interface ManagedOptions {
  /** Whether the keyring file is made at the first wrap when it is not there, as it is unless told otherwise. */
  create?: boolean;
  /** Of a sealed keyring: a variable of the environment, a file, a file descriptor that has its passphrase. */
  passphraseEnv?: string;
  passphraseFile?: string;
  passphraseFd?: number;
}

/** A connector to one kind of KMS, to be given to `Store.create` and `Store.open`. May serve several stores. */
export class Backend extends Handle {
  private constructor(pointer: Pointer) {
    super(pointer, 'keystead_backend_free');
  }

  /**
   * Loads a plugin after checking its path, which is absolute, its owners, modes and digest; nothing of one that fails
   * there runs. Rejects with `ConfigError`, with the step at which it was refused, and why.
   */
  static async load(path: string, options: PluginOptions): Promise<Backend> {
    const allowed = options.digest === undefined ? [] : [options.digest].flat();
    if (!allowed.every((digest) => /^[0-9a-f]{64}$/i.test(digest))) {
      throw new TypeError('a BLAKE3 digest has 64 hexadecimal digits');
    }
    const digests = Buffer.from(allowed.join(''), 'hex');
    const [name, nameLength] = text(options.name);
    const [settings, settingsLength] = text(options.settings && JSON.stringify(options.settings));
    const given = struct('keystead_plugin_options', {
      dangerously_without_digest: options.dangerouslyWithoutDigest ? 1 : 0,
      digests: address(digests.length > 0 ? digests : null),
      digests_len: allowed.length,
      size_max_bytes: options.sizeMaxBytes ?? 0,
      name: address(name),
      name_len: nameLength,
      settings_json: address(settings),
      settings_json_len: settingsLength,
      at_first_use: options.atFirstUse ? 1 : 0,
    });
    const held = [digests, name, settings];
    try {
      return new Backend(await produced('keystead_backend_load', ...text(path), given));
    } finally {
      held.length = 0; // only now may what the options point to go
    }
  }

  /** The managed key, with which every organization is born: a local keyring file. Back it up. */
  static async managed(keyring: string, options: ManagedOptions = {}): Promise<Backend> {
    const settings = {
      keyring: resolve(keyring),
      create: options.create ?? true,
      passphrase_env: options.passphraseEnv,
      passphrase_file: options.passphraseFile && resolve(options.passphraseFile),
      passphrase_fd: options.passphraseFd,
    };
    return new Backend(await produced('keystead_backend_managed', ...text(JSON.stringify(settings))));
  }

  /** @internal */
  static taken(pointer: Pointer): Backend {
    return new Backend(pointer);
  }

  /** The name by which stored keys refer to it. */
  get name(): string {
    return zeroTerminated(now('keystead_backend_name', this.pointer)) ?? '';
  }

  /** What it says about itself: its own name, version, limits, schemas. Nothing for a plugin that is loaded at its first use. */
  get description(): Record<string, unknown> {
    return JSON.parse(zeroTerminated(now('keystead_backend_description_json', this.pointer)) ?? '{}');
  }

  /** @internal */
  lent<T>(use: (pointer: Pointer) => Promise<T>): Promise<T> {
    return this.lend(use);
  }

  /** Frees this handle now. Stores that were opened with it go on. */
  close(): Promise<void> {
    return this.end();
  }

  /** For `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.end();
  }
}

/**
 * The BLAKE3 digest of a file, for tools that make an allow-list. It reads whatever is there and checks nothing: be sure that
 * the file is the one you mean.
 */
export async function pluginDigest(path: string): Promise<string> {
  const digest = Buffer.alloc(32);
  await done('keystead_plugin_digest', ...text(path), digest);
  return digest.toString('hex');
}
