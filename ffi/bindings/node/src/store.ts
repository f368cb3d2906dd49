// A store: one file with the secrets of many organizations, opened by one process at a time.

import { type Backend } from './backend.js';
import { BackendError } from './errors.js';
import { Family, Handle } from './handle.js';
import {
  address,
  callback,
  constant,
  done,
  look,
  now,
  produced,
  room,
  struct,
  text,
  textOf,
  watched,
  zeroTerminated,
  type Pointer,
} from './native.js';
import { Organization } from './organization.js';
import { items, organizationInfo, verifyReport, type OrganizationInfo, type VerifyReport } from './records.js';

/** How a store is created or opened. What is left out has its default. */
export interface StoreOptions {
  /** Under their names; one named `managed` wraps the key that every organization is born with. */
  backends?: Backend[];
  /** Memory for pages of the file. Default: 64 MiB. */
  cacheBytes?: number;
  /** How long an epoch's key stays in memory: the bound of revocation, and the grace in an outage. Default: 5 minutes. */
  keyLifetimeMs?: number;
  /** The deadline of one KMS call. Default: 10 seconds. */
  kmsTimeoutMs?: number;
  /** How often a KMS is tried while it is out of reach, the first time included. Default: 3. */
  kmsAttemptsMax?: number;
  /** How many epoch keys stay in memory. Default: 10,000. */
  epochKeysMax?: number;
  /** Whether re-wrap jobs go on by themselves; otherwise in `RewrapJob.runHere` alone. Default: true. */
  backgroundRewrap?: boolean;
  /** How many data keys one batch of a re-wrap moves. Default: 2,048. */
  rewrapBatch?: number;
  /** How many data keys an epoch wraps before its key must be rotated. Default: 2^30. */
  wrapsPerEpochMax?: number;
  /**
   * Mints tokens for backends that log in with them. Called on the event loop's thread, so it answers at once, from what was
   * prepared. It lives as long as the process. What it throws is an outage: what is cached serves on. A `BackendError` is what its
   * code says, and `ACCESS_DENIED` or the like takes the key away.
   */
  identityToken?: (request: IdentityRequest) => string | Uint8Array;
}

/** How a store is opened. */
export interface OpenOptions extends StoreOptions {
  /** What `checkpoint()` said; a store that has not come as far is refused, with `IntegrityError`. */
  checkpoint?: string;
}

/** For whom a token is asked. */
export interface IdentityRequest {
  /** The audience that the key's config names. */
  audience: string;
  organization: string;
  key: string;
}

/** What is verified. */
export interface VerifyOptions {
  /** Open every data key and every value, too: asks the KMS of every live epoch. */
  openValues?: boolean;
  /** Told how many versions were looked at so far. The verification waits for it, and rejects at its end with what it throws. */
  onProgress?: (lookedAt: number) => void;
}

const PAGE = 1000;

/**
 * An open store. Close it, or declare it by `await using`: what is only dropped is closed at some later time.
 *
 *     const store = await Store.open('app.keystead', { backends: [managed] });
 *     const acme = await store.organization('acme');
 *     console.log((await acme.get('prod/db/password')).value);
 *     await store.close();
 */
export class Store extends Handle {
  readonly path: string;
  readonly #family = new Family();

  private constructor(pointer: Pointer, path: string) {
    super(pointer, 'keystead_store_free');
    this.path = path;
  }

  /** Creates a store; the file appears when it is whole and synced, mode 0600. */
  static create(path: string, options: StoreOptions = {}): Promise<Store> {
    return Store.#begin('keystead_store_create', path, options);
  }

  /** Opens a store, and lets its re-wrap jobs go on. Asks no KMS. */
  static open(path: string, options: OpenOptions = {}): Promise<Store> {
    return Store.#begin('keystead_store_open', path, options);
  }

  static async #begin(name: string, path: string, options: OpenOptions): Promise<Store> {
    return withOptions(options, async (given) => new Store(await produced(name, ...text(path), given), path));
  }

  /**
   * Stops the background work, brings the file into its resting state and releases it. Every handle on the store rejects from
   * then on. Doing it twice does nothing.
   */
  async close(): Promise<void> {
    await this.end(async (pointer) => {
      try {
        await done('keystead_store_close', pointer);
      } finally {
        await this.#family.end();
      }
    });
  }

  /** For `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Its random id, 16 bytes. */
  async id(): Promise<Buffer> {
    const id = Buffer.alloc(16);
    await this.call('keystead_store_id', id);
    return id;
  }

  /** Creates an organization, with its first epoch under the key `managed`. One KMS call. */
  async createOrganization(name: string): Promise<Organization> {
    return new Organization(await this.produced('keystead_organization_create', ...text(name)), this.#family);
  }

  /** The organization of this name; rejects with `NotFoundError` when there is none. */
  async organization(name: string): Promise<Organization> {
    return new Organization(await this.produced('keystead_organization_open', ...text(name)), this.#family);
  }

  /** The organizations, by name; read 1,000 at a time, each time as the store is then. Asks no KMS. */
  async *organizations(): AsyncGenerator<OrganizationInfo, void, undefined> {
    let after: string | undefined;
    do {
      const found = await this.produced('keystead_organization_list_read', ...text(after), PAGE);
      after = zeroTerminated(now('keystead_organization_list_next', found));
      yield* items('keystead_organization_list', 'keystead_organization_info', found, organizationInfo);
    } while (after !== undefined);
  }

  /**
   * How far every organization of the store has come, as JSON. Kept where whoever can write the store cannot write, and given to
   * `open`, it has a store that was rolled back refused.
   */
  async checkpoint(): Promise<string> {
    const taken = await this.produced('keystead_checkpoint_take');
    try {
      return zeroTerminated(now('keystead_checkpoint_json', taken)) ?? '';
    } finally {
      now('keystead_checkpoint_free', taken);
    }
  }

  /**
   * Checks the whole store: every page, row, chain and count; with `openValues` also that every value opens. What is damaged
   * is in the report, not an exception.
   */
  async verify(options: VerifyOptions = {}): Promise<VerifyReport> {
    const { openValues = false, onProgress } = options;
    const flags = openValues ? constant('KEYSTEAD_VERIFY_OPEN_VALUES') : 0;
    const told = onProgress && ((_context: unknown, lookedAt: unknown) => onProgress(Number(lookedAt)));
    return watched('verify', told, async (progress) =>
      verifyReport(await this.produced('keystead_verify', flags, progress, null)),
    );
  }

  /** How many epoch keys are in memory now. */
  async cachedEpochKeys(): Promise<number> {
    return Number(await this.produced('keystead_store_cached_epoch_keys'));
  }

  /** Drops every epoch key from memory: the next use of each asks its KMS. */
  forgetEpochKeys(): Promise<void> {
    return this.call('keystead_store_forget_epoch_keys');
  }
}

/** @internal Makes the options of the library, and holds what they point to while they are used. */
export async function withOptions<T>(options: OpenOptions, use: (given: Buffer) => Promise<T>): Promise<T> {
  const backends = options.backends ?? [];
  // With a zero byte, so that an empty text, too, has an address.
  const pinned = options.checkpoint === undefined ? null : Buffer.from(`${options.checkpoint}\0`, 'utf8');
  const begin = async (pointers: Pointer[]): Promise<T> => {
    const list = Buffer.alloc(8 * Math.max(1, pointers.length));
    pointers.forEach((pointer, index) => list.writeBigUInt64LE(pointer, 8 * index));
    const given = struct('keystead_store_options', {
      without_background_rewrap: options.backgroundRewrap === false ? 1 : 0,
      backends: address(list),
      backends_len: pointers.length,
      cache_bytes: options.cacheBytes ?? 0,
      key_lifetime_ms: options.keyLifetimeMs ?? 0,
      kms_timeout_ms: options.kmsTimeoutMs ?? 0,
      epoch_keys_max: options.epochKeysMax ?? 0,
      wraps_per_epoch_max: options.wrapsPerEpochMax ?? 0,
      kms_attempts_max: options.kmsAttemptsMax ?? 0,
      rewrap_batch: options.rewrapBatch ?? 0,
      identity_token: options.identityToken ? minter(options.identityToken) : null,
      checkpoint_json: address(pinned),
      checkpoint_json_len: pinned === null ? 0 : pinned.length - 1,
    });
    const held = [list, pinned];
    try {
      return await use(given);
    } finally {
      held.length = 0; // only now may what the options point to go
    }
  };
  // Each backend is held while its address is used.
  const lend = (index: number, pointers: Pointer[]): Promise<T> =>
    index === backends.length
      ? begin(pointers)
      : backends[index]!.lent((pointer) => lend(index + 1, [...pointers, pointer]));
  return lend(0, []);
}

function minter(mint: (request: IdentityRequest) => string | Uint8Array): Pointer {
  return callback('identityToken', (_context, asked, token, capacity, tokenLength) => {
    try {
      const request = look('keystead_identity_request', asked);
      const minted = mint({
        audience: textOf(request.audience),
        organization: textOf(request.organization),
        key: textOf(request.key),
      });
      const data = typeof minted === 'string' ? Buffer.from(minted, 'utf8') : minted;
      if (data.length > Number(capacity)) return constant('KEYSTEAD_BACKEND_BUFFER_TOO_SMALL');
      if (data.length > 0) room(token, data.length).set(data);
      Buffer.from(room(tokenLength, 8).buffer).writeBigUInt64LE(BigInt(data.length));
      return constant('KEYSTEAD_BACKEND_OK');
    } catch (thrown) {
      // What it says may be anything, so it is not told.
      return constant(`KEYSTEAD_BACKEND_${thrown instanceof BackendError ? thrown.code : 'UNAVAILABLE'}`);
    }
  });
}
