// What is thrown when a call does not do what it was asked: one class of exceptions for each class of errors.

import { constant, now, zeroTerminated, type Pointer } from './native.js';

const own = [
  'INVALID_ARGUMENT', 'INVALID_PATH', 'INVALID_NAME', 'TOO_LARGE', 'BUFFER_TOO_SMALL', 'UNSUPPORTED_OPTION', 'TIMED_OUT',
  'STOPPED', 'PANICKED', 'FORKED', 'OTHER', 'ORGANIZATION_NOT_FOUND', 'ORGANIZATION_EXISTS', 'RENAME_REFUSED',
  'SECRET_NOT_FOUND', 'VERSION_NOT_FOUND', 'VERSION_DELETED', 'VERSION_DESTROYED', 'VERSION_MISMATCH', 'VERSION_LOST',
  'KEY_NOT_FOUND', 'KEY_EXISTS', 'KEY_REFUSED', 'BACKEND_NOT_REGISTERED', 'EPOCH_EXHAUSTED', 'NO_JOB', 'STORE_EXISTS',
  'STORE_NOT_FOUND', 'ALREADY_OPEN', 'NOT_A_STORE', 'DAMAGED', 'STORAGE', 'CLOSED', 'RANDOMNESS', 'PLUGIN_REFUSED',
  'BEHIND_CHECKPOINT', 'NOT_OF_CHECKPOINT', 'CHECKPOINT_OF_ANOTHER_STORE', 'LOG_TAKEN',
] as const;
const ofKms = [
  'INVALID_CONFIG', 'UNAUTHENTICATED', 'ACCESS_DENIED', 'KEY_DISABLED', 'KEY_PENDING_DELETION', 'KEY_NOT_FOUND', 'WRONG_KEY',
  'INVALID_CIPHERTEXT', 'THROTTLED', 'UNAVAILABLE', 'TIMEOUT', 'CANCELLED', 'UNSUPPORTED', 'INTERNAL',
] as const;

/** Why a backend did not do what it was asked. It decides what the store does next. */
export type BackendCode = (typeof ofKms)[number];

/** What went wrong, exactly. Later versions of the library may have more, which are told as `CODE_` and a number. */
export type ErrorCode = (typeof own)[number] | `KMS_${BackendCode}` | `CODE_${number}`;

/** A call did not do what it was asked. `message` is for people, and never holds a secret. */
export class KeysteadError extends Error {
  override name = 'KeysteadError';
  /** What went wrong, exactly: `'SECRET_NOT_FOUND'`, `'KMS_THROTTLED'`, … */
  readonly code: ErrorCode;
  /** True when the same call may succeed later without anybody's doing. */
  readonly retryable: boolean;
  /** How long a KMS asks to wait before the next try; 0 when it did not say. */
  readonly retryAfterMs: number;

  constructor(message: string, code: ErrorCode, retryable = false, retryAfterMs = 0) {
    super(message);
    this.code = code;
    this.retryable = retryable;
    this.retryAfterMs = retryAfterMs;
  }
}

/** The call is against the rules: a path, a name, an argument, a size. */
export class CallerError extends KeysteadError {
  override name = 'CallerError';
}

/** What was asked for is not there. */
export class NotFoundError extends KeysteadError {
  override name = 'NotFoundError';
}

/** What is there does not go with what was asked: it exists already, it is at another version, it is in use, it is closed. */
export class ConflictError extends KeysteadError {
  override name = 'ConflictError';
}

/** The owner has taken the key away: disabled, deleted, denied. */
export class RevokedError extends KeysteadError {
  override name = 'RevokedError';
}

/** Bytes are not what was written, of the store or of what a KMS wrapped. Nothing was guessed. */
export class IntegrityError extends KeysteadError {
  override name = 'IntegrityError';
}

/** A KMS is out of reach or throttles, or the time that the caller gave is over. */
export class OutageError extends KeysteadError {
  override name = 'OutageError';
}

/** Settings of a backend, or the config of a key, are wrong; a plugin was refused. */
export class ConfigError extends KeysteadError {
  override name = 'ConfigError';
}

/** The disk, the file system or the operating system failed. */
export class SystemFailureError extends KeysteadError {
  override name = 'SystemFailureError';
}

/** A fault in the library or in a backend. */
export class FaultError extends KeysteadError {
  override name = 'FaultError';
}

/** Thrown by the application: what `identityToken` answers instead of a token. Of the message nothing is told. */
export class BackendError extends Error {
  override name = 'BackendError';
  readonly code: BackendCode;

  constructor(code: BackendCode, message?: string) {
    super(message);
    if (!ofKms.includes(code)) throw new TypeError(`a backend's code is one of ${ofKms.join(', ')}`);
    this.code = code;
  }
}

type Kind = new (message: string, code: ErrorCode, retryable?: boolean, retryAfterMs?: number) => KeysteadError;

const kinds: [string, Kind][] = [
  ['KEYSTEAD_CLASS_CALLER', CallerError],
  ['KEYSTEAD_CLASS_NOT_FOUND', NotFoundError],
  ['KEYSTEAD_CLASS_CONFLICT', ConflictError],
  ['KEYSTEAD_CLASS_REVOKED', RevokedError],
  ['KEYSTEAD_CLASS_INTEGRITY', IntegrityError],
  ['KEYSTEAD_CLASS_OUTAGE', OutageError],
  ['KEYSTEAD_CLASS_CONFIG', ConfigError],
  ['KEYSTEAD_CLASS_SYSTEM', SystemFailureError],
  ['KEYSTEAD_CLASS_FAULT', FaultError],
];

/** The exception for an error of the library, which is freed. */
export function errorOf(error: Pointer): KeysteadError {
  const kind = now('keystead_error_class', error);
  const Kind = kinds.find(([name]) => constant(name) === kind)?.[1] ?? KeysteadError;
  const thrown = new Kind(
    zeroTerminated(now('keystead_error_message', error)) ?? '',
    nameOf(now('keystead_error_code', error)),
    now('keystead_error_is_retryable', error) !== 0,
    Number(now('keystead_error_retry_after_ms', error)),
  );
  now('keystead_error_free', error);
  return thrown;
}

/** What is thrown when a handle is used after its end. */
export function closedError(what: string): ConflictError {
  return new ConflictError(`this ${what} is closed`, 'CLOSED');
}

/** What is thrown when the time that the caller gave is over. */
export function timedOut(): OutageError {
  return new OutageError('the re-wrap job is not done within the time given; it goes on', 'TIMED_OUT', true);
}

let names: Map<number, ErrorCode> | undefined;

function nameOf(code: number): ErrorCode {
  names ??= new Map<number, ErrorCode>([
    ...own.map((name) => [constant(`KEYSTEAD_${name}`), name] as const),
    ...ofKms.map((name) => [constant('KEYSTEAD_KMS') + constant(`KEYSTEAD_BACKEND_${name}`), `KMS_${name}`] as const),
  ]);
  return names.get(code) ?? `CODE_${code}`;
}
