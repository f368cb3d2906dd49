// One tenant's handle: its secrets, keys, epochs, re-wrap job and audit trail.

import { Member, type Family } from './handle.js';
import { address, array, bytes, constant, look, now, struct, text, zeroTerminated, type Pointer } from './native.js';
import {
  auditRecord,
  epoch,
  items,
  keyInfo,
  rewrapStatus,
  secondKey,
  secret,
  secretInfo,
  versionInfo,
  type AuditHead,
  type AuditRecord,
  type Epoch,
  type KeyInfo,
  type RewrapStatus,
  type SecondKey,
  type Secret,
  type SecretInfo,
  type VersionInfo,
} from './records.js';
import { RewrapJob } from './rewrap.js';
import { SecretReadStream, SecretWriteStream } from './stream.js';
import { done, produced } from './native.js';

/** What goes with a value. */
export interface PutOptions {
  /** What the latest version must be for the put to go through: its number, or `'new'` for none. */
  expect?: number | 'new';
  /** Kept in clear, beside the value; at most 64. */
  labels?: Record<string, string>;
  /** What kind of content it is, such as `text/plain`. Kept in clear. */
  contentType?: string;
}

/** One put of a batch. */
export interface Put extends PutOptions {
  path: string;
  value: string | Uint8Array;
}

const PAGE = 1000;

/**
 * One organization of a store. Every change is durable when its promise resolves; reads never wait for writers. A value that
 * is a string is written as UTF-8. A buffer that is given must not be changed until the promise has settled.
 */
export class Organization extends Member {
  readonly name: string;
  /** Its number: given once, never given again. */
  readonly id: number;
  /** Its registered keys, and what can be done with them. */
  readonly keys: Keys;

  /** @internal */
  constructor(pointer: Pointer, family: Family) {
    super(pointer, 'keystead_organization_free', family);
    this.name = zeroTerminated(now('keystead_organization_name', pointer)) ?? '';
    this.id = now('keystead_organization_id', pointer);
    this.keys = new Keys({
      call: (name, ...given) => this.call(name, ...given),
      produced: (name, ...given) => this.produced(name, ...given),
      job: (pointer) => this.#job(pointer),
    });
  }

  /** The same organization, acting for somebody and for a reason: its audit records say so. */
  async actingAs(actor?: string, reason?: string): Promise<Organization> {
    const pointer = await this.produced('keystead_organization_acting_as', ...text(actor), ...text(reason));
    return new Organization(pointer, this.family);
  }

  /** Writes a new version of a secret, of 0 bytes to 64 MiB, and resolves to its number. */
  async put(path: string, value: string | Uint8Array, options: PutOptions = {}): Promise<number> {
    const version = Buffer.alloc(4);
    const { memory, held } = putOptions(options);
    await this.call('keystead_put', ...text(path), ...bytes(value), memory, version);
    held.length = 0;
    return version.readUInt32LE();
  }

  /**
   * Writes several values in one commit, or none of them, and resolves to their versions, in order. At most 10,000 puts with
   * 16 MiB of values together.
   */
  async putAll(puts: Put[] | Record<string, string | Uint8Array>): Promise<number[]> {
    const list = Array.isArray(puts) ? puts : Object.entries(puts).map(([path, value]): Put => ({ path, value }));
    const batch = await produced('keystead_batch_new');
    try {
      for (const put of list) {
        const { memory, held } = putOptions(put);
        await done('keystead_batch_put', batch, ...text(put.path), ...bytes(put.value), memory);
        held.length = 0;
      }
      const versions = Buffer.alloc(4 * Math.max(1, list.length));
      await this.call('keystead_batch_commit', batch, versions, list.length);
      return list.map((_, index) => versions.readUInt32LE(4 * index));
    } finally {
      now('keystead_batch_free', batch);
    }
  }

  /** Reads a version of a secret; without a number, the latest. Asks a KMS only when the epoch's key is not in memory. */
  async get(path: string, version = 0): Promise<Secret> {
    return secret(await this.produced('keystead_get', ...text(path), version));
  }

  /** A stream that writes a large value. */
  createWriteStream(path: string, options: PutOptions = {}): SecretWriteStream {
    const { memory, held } = putOptions(options);
    const opened = this.produced('keystead_writer_open', ...text(path), memory);
    return new SecretWriteStream(
      opened.finally(() => (held.length = 0)),
      this.family,
    );
  }

  /** A stream that reads a value in bounded memory. */
  createReadStream(path: string, version = 0): SecretReadStream {
    return new SecretReadStream(this.produced('keystead_reader_open', ...text(path), version), this.family);
  }

  /** What is known of a secret without opening it. */
  async info(path: string): Promise<SecretInfo> {
    const found = await this.produced('keystead_info', ...text(path));
    return items('keystead_secret_list', 'keystead_secret_info', found, secretInfo)[0]!;
  }

  /**
   * The secrets whose paths begin with `prefix`, in the order of their bytes: `for await (const info of acme.list())`. Opens
   * nothing, asks no KMS; read 1,000 at a time, each time as the store is then.
   */
  async *list(prefix = ''): AsyncGenerator<SecretInfo, void, undefined> {
    let after: string | undefined;
    do {
      const found = await this.produced('keystead_list', ...text(prefix), ...text(after), PAGE);
      after = zeroTerminated(now('keystead_secret_list_next', found));
      yield* items('keystead_secret_list', 'keystead_secret_info', found, secretInfo);
    } while (after !== undefined);
  }

  /** The versions of a secret behind `after`, oldest first. Opens nothing, asks no KMS. */
  async *history(path: string, after = 0): AsyncGenerator<VersionInfo, void, undefined> {
    for (;;) {
      const found = await this.produced('keystead_history', ...text(path), after, PAGE);
      const versions = items('keystead_version_list', 'keystead_version_info', found, versionInfo);
      yield* versions;
      if (versions.length < PAGE) return;
      after = versions.at(-1)!.version;
    }
  }

  /** Deletes a version: it is kept, but not read, until it is undeleted. Doing it twice changes nothing. */
  delete(path: string, version: number): Promise<void> {
    return this.call('keystead_delete', ...text(path), version);
  }

  /** Brings a deleted version back. */
  undelete(path: string, version: number): Promise<void> {
    return this.call('keystead_undelete', ...text(path), version);
  }

  /** Destroys a version: **its data key and its value are gone for good.** */
  destroy(path: string, version: number): Promise<void> {
    return this.call('keystead_destroy', ...text(path), version);
  }

  /**
   * Sets how many versions of a secret are kept: every further put **destroys** the oldest ones beyond that. Undefined, the
   * default, keeps all.
   */
  async setRetention(path: string, keep: number | undefined): Promise<void> {
    if (keep !== undefined && !(keep >= 1)) throw new RangeError('at least one version is kept; undefined keeps all');
    await this.call('keystead_set_retention', ...text(path), keep ?? 0);
  }

  /** Every epoch since the first. Asks no KMS. */
  async epochs(): Promise<Epoch[]> {
    return items('keystead_epoch_list', 'keystead_epoch', await this.produced('keystead_epoch_list_read'), epoch);
  }

  /** How its re-wrap job stands: the running one, or the last; undefined when there never was one. Asks no KMS. */
  async rewrapStatus(): Promise<RewrapStatus | undefined> {
    const found = await this.produced('keystead_rewrap_status_read');
    return found === 0n ? undefined : rewrapStatus(found);
  }

  /** Its running re-wrap job, to wait for; rejects with `NotFoundError` when none runs. */
  async rewrapJob(): Promise<RewrapJob> {
    return this.#job(await this.produced('keystead_rewrap_job_open'));
  }

  /** The audit records behind number `after`, oldest first; each is checked to chain to the one before it. Asks no KMS. */
  async *audit(after = 0): AsyncGenerator<AuditRecord, void, undefined> {
    for (;;) {
      const found = await this.produced('keystead_audit_list_read', after, PAGE);
      const records = items('keystead_audit_list', 'keystead_audit_record', found, auditRecord);
      yield* records;
      if (records.length < PAGE) return;
      after = records.at(-1)!.sequence;
    }
  }

  /** Number and hash of the newest audit record. */
  async auditHead(): Promise<AuditHead> {
    const memory = struct('keystead_audit_head');
    await this.call('keystead_audit_head_read', memory);
    const head = look('keystead_audit_head', memory);
    return { sequence: Number(head.sequence), hash: head.hash };
  }

  #job(pointer: Pointer): RewrapJob {
    return new RewrapJob(pointer, this.family, () => this.rewrapStatus());
  }
}

interface Calls {
  call(name: string, ...given: (Buffer | number | null)[]): Promise<void>;
  produced(name: string, ...given: (Buffer | number | null)[]): Promise<Pointer>;
  job(pointer: Pointer): RewrapJob;
}

/**
 * The registered keys of an organization. Each change is one atomic commit with its audit records; one that fails at a KMS
 * has changed nothing. Those that move data keys resolve to the job that does, to wait for or not.
 */
export class Keys {
  readonly #organization: Calls;

  /** @internal */
  constructor(organization: Calls) {
    this.#organization = organization;
  }

  /** Every key, by name. Asks no KMS. */
  async list(): Promise<KeyInfo[]> {
    const found = await this.#organization.produced('keystead_key_list_read');
    return items('keystead_key_list', 'keystead_key_info', found, keyInfo);
  }

  /**
   * Registers a key of the KMS behind `backend`, a name that the store was opened with, after a probe.
   *
   * The first customer-managed key becomes the default and takes over everything: its KMS wraps the epochs before the promise
   * resolves; re-wrapping the data keys goes on in the background.
   */
  add(name: string, backend: string, config: Record<string, unknown> = {}): Promise<RewrapJob> {
    return this.#job('keystead_key_add', ...text(name), ...text(backend), ...text(JSON.stringify(config)));
  }

  /** Opens a new epoch under a key, which takes the new data keys from now on. Existing ones stay unless `rewrap` is true. */
  setDefault(name: string, options: { rewrap?: boolean } = {}): Promise<RewrapJob> {
    return this.#job('keystead_key_set_default', ...text(name), options.rewrap ? 1 : 0);
  }

  /**
   * Disables a key: everything under it is handed over and re-wrapped to `target` first. If its KMS cannot be reached, it
   * stays on the way until it can.
   */
  disable(name: string, target: string): Promise<RewrapJob> {
    return this.#job('keystead_key_disable', ...text(name), ...text(target));
  }

  /** Back to the managed key: everything moves there, and all customer-managed keys are disabled. */
  disableAll(): Promise<RewrapJob> {
    return this.#job('keystead_key_disable_all');
  }

  /** Opens a new epoch under the same key, re-wraps to it what the key held, and retires the older epochs. */
  rotate(name: string): Promise<RewrapJob> {
    return this.#job('keystead_key_rotate', ...text(name));
  }

  /** Gives the running re-wrap job another target. */
  retarget(name: string): Promise<RewrapJob> {
    return this.#job('keystead_key_retarget', ...text(name));
  }

  /**
   * Makes a registered key the second key: it wraps every live epoch as well, now and from now on. While one of the two KMSs is
   * out of reach, the other opens everything.
   *
   * Revoking either key is honoured, as far as it is the one that is asked. With `eitherOpens` it is not: **then both must be
   * revoked to take the data away.** The job moves nothing, and is done when every live epoch is wrapped by both.
   */
  setSecond(name: string, options: { eitherOpens?: boolean } = {}): Promise<RewrapJob> {
    return this.#job('keystead_key_set_second', ...text(name), options.eitherOpens ? 1 : 0);
  }

  /** The second key is one like the others again, and opens nothing: its wraps are erased. Asks no KMS. */
  removeSecond(): Promise<void> {
    return this.#organization.call('keystead_key_remove_second');
  }

  /** The second key, and how it stands; undefined where there is none. Asks no KMS. */
  async second(): Promise<SecondKey | undefined> {
    const found = await this.#organization.produced('keystead_second_key_read');
    return found === 0n ? undefined : secondKey(found);
  }

  /** Asks the KMS of a key now, by wrapping and unwrapping random bytes: three KMS calls. */
  probe(name: string): Promise<void> {
    return this.#organization.call('keystead_key_probe', ...text(name));
  }

  async #job(name: string, ...given: (Buffer | number | null)[]): Promise<RewrapJob> {
    return this.#organization.job(await this.#organization.produced(name, ...given));
  }
}

/** Options of a put, and what they point to, which must be held as long. */
function putOptions(options: PutOptions): { memory: Buffer | null; held: (Buffer | null)[] } {
  const { expect, labels = {}, contentType } = options;
  if (expect === undefined && contentType === undefined && Object.keys(labels).length === 0) {
    return { memory: null, held: [] };
  }
  if (expect !== undefined && expect !== 'new' && !(Number.isInteger(expect) && expect >= 1)) {
    throw new RangeError("expect is the number of a version, or 'new'");
  }
  const held: (Buffer | null)[] = [];
  const keep = (value: string | undefined): [Pointer | null, number] => {
    const [data, length] = text(value);
    // A text that is there but empty is not a missing one.
    const memory = data && length === 0 ? Buffer.alloc(1) : data;
    held.push(memory);
    return [address(memory), length];
  };
  const [type, typeLength] = keep(contentType);
  const pairs = Object.entries(labels).map(([name, value]) => {
    const [nameData, nameLength] = keep(name);
    const [valueData, valueLength] = keep(value);
    return { name: { data: nameData, len: nameLength }, value: { data: valueData, len: valueLength } };
  });
  const list = pairs.length > 0 ? array('keystead_label', pairs) : null;
  held.push(list);
  const kind = expect === undefined ? 'ANY' : expect === 'new' ? 'NEW' : 'VERSION';
  const memory = struct('keystead_put_options', {
    expect: constant(`KEYSTEAD_EXPECT_${kind}`),
    expect_version: typeof expect === 'number' ? expect : 0,
    content_type: type,
    content_type_len: typeLength,
    labels: address(list),
    labels_len: pairs.length,
  });
  return { memory, held };
}
