// What the library answers, as plain objects, but for values. Times are dates; numbers of the library's 64 bits are numbers, all of which
// are exact up to 2^53.

import { inspect, type InspectOptions } from 'node:util';
import { constant, copied, doneNow, look, lookAll, now, optionalTextOf, struct, textOf, type Pointer } from './native.js';

/**
 * A value that was read. `value` is an ordinary buffer: whoever wants it erased calls `value.fill(0)`. Whatever prints, copies or
 * serializes all of an object's fields, as a log does, finds `sizeBytes` in its place.
 */
export class Secret {
  readonly #value: Buffer;
  readonly version: number;
  readonly sizeBytes: number;
  readonly labels: Record<string, string>;
  readonly createdAt: Date;
  /** What kind of content it is, if its writer said so. */
  declare readonly contentType?: string;

  /** @internal */
  constructor(value: Buffer, beside: Pick<Secret, 'version' | 'labels' | 'contentType' | 'createdAt'>) {
    this.#value = value;
    this.version = beside.version;
    this.sizeBytes = value.length;
    this.labels = beside.labels;
    this.createdAt = beside.createdAt;
    if (beside.contentType !== undefined) this.contentType = beside.contentType;
  }

  get value(): Buffer {
    return this.#value;
  }

  /** @internal Some options of `inspect` would ask for the value. */
  [inspect.custom](_depth: number, options: InspectOptions): string {
    return `Secret ${inspect({ ...this }, options)}`;
  }
}

/** An organization in a list. */
export interface OrganizationInfo {
  id: number;
  name: string;
  createdAt: Date;
  secrets: number;
}

/** A secret in a list. Nothing of it was decrypted. */
export interface SecretInfo {
  path: string;
  latest: number;
  /** How many of its versions are deleted, and can be undeleted. */
  deleted: number;
  /** How many versions are kept; undefined: all. */
  retention?: number;
  createdAt: Date;
  updatedAt: Date;
}

/** A version in a history. Nothing of it was decrypted. */
export interface VersionInfo {
  version: number;
  /**
   * A deleted one can be undeleted; of a destroyed one, data key and value are gone for good; a lost one fell to damage of the
   * file, from which the rest was salvaged.
   */
  state: 'live' | 'deleted' | 'destroyed' | 'lost' | 'unknown';
  /** When it was deleted, destroyed or lost. */
  stateAt?: Date;
  createdAt: Date;
  sizeBytes: number;
  contentType?: string;
  labels: Record<string, string>;
}

/** A registered key. */
export interface KeyInfo {
  name: string;
  backend: string;
  config: Record<string, unknown>;
  /** Whether new epochs may be opened under it; while it is disabling, its data keys are re-wrapped to another key; a second key wraps every live
   * epoch as well. */
  state: 'enabled' | 'disabling' | 'disabled' | 'second' | 'second-either' | 'unknown';
  /** True for the key under which the active epoch was opened. */
  isDefault: boolean;
  createdAt: Date;
}

/** An organization's second key, and how far it has come. */
export interface SecondKey {
  key: string;
  /** True when revoking one of the two keys is not enough: the other opens the epochs alone. */
  eitherOpens: boolean;
  /** Live epochs that it wraps. */
  wrapped: number;
  /** Live epochs that it does not wrap yet; the organization's re-wrap job goes on until there are none. */
  missing: number;
  /** Why the job waits, if it does. */
  blocked?: string;
  /** Set while one key serves because another does not answer, as this process last saw it. */
  standingIn?: StandingIn;
}

/** One key serves because another does not answer. */
export interface StandingIn {
  /** The one that serves. */
  key: string;
  since: Date;
  /** What the other one met, in the words of the error. */
  because: string;
}

/** A registered key that wraps an epoch, and the KMS's own id of it. */
export interface WrappedBy {
  key: string;
  kmsKeyId: string;
}

/** A key epoch, as an organization's owner or auditor sees it. */
export interface Epoch {
  number: number;
  key: string;
  kmsKeyId: string;
  /** The registered keys that wrap it now; empty when it is retired. */
  wrappedBy: WrappedBy[];
  openedAt: Date;
  actor?: string;
  reason?: string;
  cause:
    | 'organization-created'
    | 'first-own-key'
    | 'set-default'
    | 'rotation'
    | 'key-disabled'
    | 'all-keys-disabled'
    | 'record-lost'
    | 'unknown';
  /** How many data keys refer to it. */
  dataKeys: number;
  /** New data keys are wrapped under the active one; to a retired one nothing refers, and its wraps are erased. */
  state: 'active' | 'live' | 'retired' | 'unknown';
  retiredAt?: Date;
  hash: string;
}

/** One of the epochs that a job moves, and where to. */
export interface RewrapSource {
  epoch: number;
  target: number;
  /** True once the target's KMS wraps its key. */
  handedOver: boolean;
  retired: boolean;
}

/** How a re-wrap job stands; `total`, `done`, `failed` and `remaining` count data keys. */
export interface RewrapStatus {
  /** Its number in its organization; 0 when there was nothing to move. */
  job: number;
  /** Data keys are being moved, or some source epoch is still wrapped by its old KMS alone. */
  phase: 'hand-over' | 'moving' | 'unknown';
  /** A blocked one waits and tries again. */
  state: 'running' | 'blocked' | 'done' | 'unknown';
  /** Why it is blocked, if it is. */
  blocked?: string;
  total: number;
  done: number;
  /** Data keys that did not open in this pass, and stay where they are. */
  failed: number;
  remaining: number;
  batches: number;
  /** Data keys a second; 0 when that is not known yet. */
  rate: number;
  sources: RewrapSource[];
}

/** One record of the audit trail. */
export interface AuditRecord {
  sequence: number;
  at: Date;
  /** What happened: `'VersionPut'`, `'KeyAdded'`, `'EpochOpened'`, … */
  event: string;
  details: Record<string, unknown>;
  actor?: string;
  reason?: string;
  hash: string;
}

/** The newest audit record's place in its chain: noted elsewhere, it shows later that nothing before was changed. */
export interface AuditHead {
  sequence: number;
  hash: string;
}

/** One thing that is wrong, or that could not be opened. */
export interface Problem {
  organization?: string;
  path?: string;
  version?: number;
  what: string;
}

/** What a verification found: how much it looked at, and what is wrong. Without problems, all is well. */
export interface VerifyReport {
  organizations: number;
  secrets: number;
  versions: number;
  valuesOpened: number;
  epochs: number;
  auditRecords: number;
  problems: Problem[];
  /** Why some values were not opened: a KMS that did not answer, a key that was taken away. */
  unopened: Problem[];
  /** Blocks of 4 KiB that were read from the disk and compared with their tags. */
  blocks: number;
  /** Blocks that do not match their tags, and to which nothing refers: a crash in the middle of a commit leaves such ones. */
  staleBlocks: number;
  /** Chunks of large values. */
  chunks: number;
  /** Wraps of epoch keys that were opened under the shred keys in their cells. */
  wraps: number;
  /** False when something was so damaged that not all could be looked at: what it was is among the problems. */
  complete: boolean;
}

/** One thing that was lost, or that was not opened. */
export interface Loss {
  /** An undecided version may have been destroyed before: nothing that is left says. */
  kind: 'version' | 'undecided' | 'key' | 'epoch' | 'audit-records' | 'organization' | 'journal' | 'unknown';
  organization?: string;
  organizationId?: number;
  /** Not there when it is not of a secret, or its path is gone as well. */
  path?: string;
  secretId?: number;
  version?: number;
  /** What it was, and why it is lost. */
  what: string;
}

/** What came of a salvage: what stands in the new store, and what was lost. */
export interface SalvageReport {
  storeId: Buffer;
  organizations: number;
  secrets: number;
  /** Versions whose values are in the new store: those that were opened, are right by their tags, or are unproven. */
  versions: number;
  opened: number;
  tagged: number;
  /** Of pages which nothing led to, and not opened: whether they are right shows when they are read. */
  unproven: number;
  /** Versions that were destroyed before: their numbers stay. */
  destroyed: number;
  auditKept: number;
  /** Audit records behind a missing one, carried over into the new chain. */
  auditCarried: number;
  journalRecordsLost: number;
  /** Empty when nothing was lost. */
  lost: Loss[];
  /** Why values were not opened: an epoch whose KMS did not answer. */
  unopened: Loss[];
}

/** How a keyring stood. */
export interface KeyringStatus {
  /** A part of the KMS key id of whatever it wraps. */
  id: string;
  enabled: boolean;
  /** True when a passphrase seals it. */
  sealed: boolean;
  /** The versions of its master key, ascending; the last one wraps. */
  versions: { number: number; createdAt: Date }[];
}

/** The items of a list of the library, which is freed, and what to pass as `after` for the next page. */
export function items<T>(list: string, item: string, found: Pointer, convert: (item: any) => T): T[] {
  try {
    return itemsOf(found, now(`${list}_len`, found), `${list}_get`, item, convert);
  } finally {
    now(`${list}_free`, found);
  }
}

/** The same for items of which there are so many in a report. */
export function itemsOf<T>(
  found: Pointer,
  length: number | bigint,
  get: string,
  item: string,
  convert: (item: any) => T,
): T[] {
  return Array.from({ length: Number(length) }, (_, index) => {
    const memory = struct(item);
    doneNow(get, found, index, memory);
    return convert(look(item, memory));
  });
}

function state<T extends string>(value: number, prefix: string, names: Record<string, T>): T | 'unknown' {
  const found = Object.entries(names).find(([name]) => constant(prefix + name) === value);
  return found ? found[1] : 'unknown';
}

const time = (milliseconds: number | bigint): Date => new Date(Number(milliseconds));
const optionalTime = (milliseconds: number | bigint): Date | undefined =>
  Number(milliseconds) === 0 ? undefined : time(milliseconds);

/** Fields that are not there are not there, rather than undefined. */
function only<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as T;
}

function labels(data: Pointer | null, length: number | bigint): Record<string, string> {
  const found = lookAll('keystead_label', data, length);
  return Object.fromEntries(found.map((label) => [textOf(label.name), textOf(label.value)]));
}

/** A secret of the library, which is erased and freed there. */
export function secret(found: Pointer): Secret {
  try {
    const memory = struct('keystead_secret_view');
    doneNow('keystead_secret_look', found, memory);
    const view = look('keystead_secret_view', memory);
    return new Secret(copied(view.data, view.len), {
      version: view.version,
      labels: labels(view.labels, view.labels_len),
      contentType: optionalTextOf(view.content_type),
      createdAt: time(view.created_at_ms),
    });
  } finally {
    now('keystead_secret_free', found);
  }
}

export const organizationInfo = (item: any): OrganizationInfo => ({
  id: item.id,
  name: textOf(item.name),
  createdAt: time(item.created_at_ms),
  secrets: Number(item.secrets),
});

export const secretInfo = (item: any): SecretInfo =>
  only({
    path: textOf(item.path),
    latest: item.latest,
    deleted: item.deleted,
    retention: item.retention || undefined,
    createdAt: time(item.created_at_ms),
    updatedAt: time(item.updated_at_ms),
  }) as SecretInfo;

export const versionInfo = (item: any): VersionInfo =>
  only({
    version: item.version,
    state: state(item.state, 'KEYSTEAD_VERSION_', {
      LIVE: 'live',
      IS_DELETED: 'deleted',
      IS_DESTROYED: 'destroyed',
      IS_LOST: 'lost',
    }),
    stateAt: optionalTime(item.state_at_ms),
    createdAt: time(item.created_at_ms),
    sizeBytes: Number(item.size_bytes),
    contentType: optionalTextOf(item.content_type),
    labels: labels(item.labels, item.labels_len),
  }) as VersionInfo;

export const keyInfo = (item: any): KeyInfo => ({
  name: textOf(item.name),
  backend: textOf(item.backend),
  config: JSON.parse(textOf(item.config_json)),
  state: state(item.state, 'KEYSTEAD_KEY_', {
    ENABLED: 'enabled',
    DISABLING: 'disabling',
    DISABLED: 'disabled',
    SECOND: 'second',
    SECOND_EITHER: 'second-either',
  }),
  isDefault: item.is_default !== 0,
  createdAt: time(item.created_at_ms),
});

export const epoch = (item: any): Epoch =>
  only({
    number: item.number,
    key: textOf(item.key),
    kmsKeyId: textOf(item.kms_key_id),
    wrappedBy: lookAll('keystead_wrapped_by', item.wrapped_by, item.wrapped_by_len).map((wrap) => ({
      key: textOf(wrap.key),
      kmsKeyId: textOf(wrap.kms_key_id),
    })),
    openedAt: time(item.opened_at_ms),
    actor: optionalTextOf(item.actor),
    reason: optionalTextOf(item.reason),
    cause: state(item.cause, 'KEYSTEAD_CAUSE_', {
      ORGANIZATION_CREATED: 'organization-created',
      FIRST_OWN_KEY: 'first-own-key',
      SET_DEFAULT: 'set-default',
      ROTATION: 'rotation',
      KEY_DISABLED: 'key-disabled',
      ALL_KEYS_DISABLED: 'all-keys-disabled',
      RECORD_LOST: 'record-lost',
    }),
    dataKeys: Number(item.data_keys),
    state: state(item.state, 'KEYSTEAD_EPOCH_', { ACTIVE: 'active', LIVE: 'live', RETIRED: 'retired' }),
    retiredAt: optionalTime(item.retired_at_ms),
    hash: textOf(item.hash),
  }) as Epoch;

/** A second key of the library, which is freed. */
export function secondKey(found: Pointer): SecondKey {
  try {
    const memory = struct('keystead_second_key_status');
    doneNow('keystead_second_key_look', found, memory);
    const item = look('keystead_second_key_status', memory);
    const since = optionalTime(item.standing_in_since_ms);
    return only({
      key: textOf(item.key),
      eitherOpens: item.either_opens !== 0,
      wrapped: Number(item.wrapped),
      missing: Number(item.missing),
      blocked: optionalTextOf(item.blocked),
      standingIn: since && { key: textOf(item.standing_in), since, because: textOf(item.standing_in_because) },
    }) as SecondKey;
  } finally {
    now('keystead_second_key_free', found);
  }
}

/** A status of the library, which is freed. */
export function rewrapStatus(found: Pointer): RewrapStatus {
  try {
    const memory = struct('keystead_rewrap_progress');
    doneNow('keystead_rewrap_status_look', found, memory);
    const item = look('keystead_rewrap_progress', memory);
    return only({
      job: Number(item.job),
      phase: state(item.phase, 'KEYSTEAD_REWRAP_', { HAND_OVER: 'hand-over', MOVING: 'moving' }),
      state: state(item.state, 'KEYSTEAD_REWRAP_', { RUNNING: 'running', BLOCKED: 'blocked', DONE: 'done' }),
      blocked: optionalTextOf(item.blocked),
      total: Number(item.total),
      done: Number(item.done),
      failed: Number(item.failed),
      remaining: Number(item.remaining),
      batches: Number(item.batches),
      rate: item.rate,
      sources: lookAll('keystead_rewrap_source', item.sources, item.sources_len).map((source) => ({
        epoch: source.epoch,
        target: source.target,
        handedOver: source.handed_over !== 0,
        retired: source.retired !== 0,
      })),
    }) as RewrapStatus;
  } finally {
    now('keystead_rewrap_status_free', found);
  }
}

export const auditRecord = (item: any): AuditRecord =>
  only({
    sequence: Number(item.sequence),
    at: time(item.at_ms),
    event: textOf(item.event),
    details: JSON.parse(textOf(item.details_json)),
    actor: optionalTextOf(item.actor),
    reason: optionalTextOf(item.reason),
    hash: textOf(item.hash),
  }) as AuditRecord;

export const problem = (item: any): Problem =>
  only({
    organization: optionalTextOf(item.organization),
    path: optionalTextOf(item.path),
    version: item.version || undefined,
    what: textOf(item.what),
  }) as Problem;

/** A report of the library, which is freed. */
export function verifyReport(found: Pointer): VerifyReport {
  try {
    const memory = struct('keystead_verify_counts');
    doneNow('keystead_verify_report_counts', found, memory);
    const counts = look('keystead_verify_counts', memory);
    const problems = (length: number, get: string): Problem[] => itemsOf(found, length, get, 'keystead_problem', problem);
    return {
      organizations: Number(counts.organizations),
      secrets: Number(counts.secrets),
      versions: Number(counts.versions),
      valuesOpened: Number(counts.values_opened),
      epochs: Number(counts.epochs),
      auditRecords: Number(counts.audit_records),
      blocks: Number(counts.blocks),
      staleBlocks: Number(counts.stale_blocks),
      chunks: Number(counts.chunks),
      wraps: Number(counts.wraps),
      complete: counts.complete !== 0,
      problems: problems(counts.problems, 'keystead_verify_report_problem'),
      unopened: problems(counts.unopened, 'keystead_verify_report_unopened'),
    };
  } finally {
    now('keystead_verify_report_free', found);
  }
}

const loss = (item: any): Loss =>
  only({
    kind: state(item.kind, 'KEYSTEAD_LOST_', {
      VERSION: 'version',
      UNDECIDED: 'undecided',
      KEY: 'key',
      EPOCH: 'epoch',
      AUDIT_RECORDS: 'audit-records',
      ORGANIZATION: 'organization',
      JOURNAL: 'journal',
    }),
    organization: optionalTextOf(item.organization),
    organizationId: item.organization_id || undefined,
    path: optionalTextOf(item.path),
    secretId: Number(item.secret_id) || undefined,
    version: item.version || undefined,
    what: textOf(item.what),
  }) as Loss;

/** A report of the library, which is freed. */
export function salvageReport(found: Pointer): SalvageReport {
  try {
    const memory = struct('keystead_salvage_counts');
    doneNow('keystead_salvage_report_counts', found, memory);
    const counts = look('keystead_salvage_counts', memory);
    const losses = (length: number, get: string): Loss[] => itemsOf(found, length, get, 'keystead_loss', loss);
    return {
      storeId: Buffer.from(counts.store_id),
      organizations: Number(counts.organizations),
      secrets: Number(counts.secrets),
      versions: Number(counts.versions),
      opened: Number(counts.opened),
      tagged: Number(counts.tagged),
      unproven: Number(counts.unproven),
      destroyed: Number(counts.destroyed),
      auditKept: Number(counts.audit_kept),
      auditCarried: Number(counts.audit_carried),
      journalRecordsLost: Number(counts.journal_records_lost),
      lost: losses(counts.lost, 'keystead_salvage_report_lost'),
      unopened: losses(counts.unopened, 'keystead_salvage_report_unopened'),
    };
  } finally {
    now('keystead_salvage_report_free', found);
  }
}

/** A status of the library, which is freed. */
export function keyringStatus(found: Pointer): KeyringStatus {
  try {
    const memory = struct('keystead_keyring_info');
    doneNow('keystead_keyring_status_look', found, memory);
    const info = look('keystead_keyring_info', memory);
    return {
      id: textOf(info.id),
      enabled: info.enabled !== 0,
      sealed: info.sealed !== 0,
      versions: lookAll('keystead_keyring_version', info.versions, info.versions_len).map((version) => ({
        number: version.number,
        createdAt: time(version.created_at_ms),
      })),
    };
  } finally {
    now('keystead_keyring_status_free', found);
  }
}
