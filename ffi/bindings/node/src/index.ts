// Keystead: an embedded database for secrets whose owners bring their own keys. Nothing here waits on the event loop's thread.

export { Backend, pluginDigest, type ManagedOptions, type PluginOptions } from './backend.js';
export {
  BackendError,
  CallerError,
  ConfigError,
  ConflictError,
  FaultError,
  IntegrityError,
  KeysteadError,
  NotFoundError,
  OutageError,
  RevokedError,
  SystemFailureError,
  type BackendCode,
  type ErrorCode,
} from './errors.js';
export { Keyring, type SealingOptions } from './keyring.js';
export { Log, logTo, type LogLevel, type LogOptions, type LogRecord } from './log.js';
export { version } from './native.js';
export { Keys, Organization, type Put, type PutOptions } from './organization.js';
export type {
  AuditHead,
  AuditRecord,
  Epoch,
  KeyInfo,
  KeyringStatus,
  Loss,
  OrganizationInfo,
  Problem,
  RewrapSource,
  RewrapStatus,
  SalvageReport,
  SecondKey,
  Secret,
  SecretInfo,
  StandingIn,
  VerifyReport,
  VersionInfo,
  WrappedBy,
} from './records.js';
export { RewrapJob, type WaitOptions } from './rewrap.js';
export { salvage, type SalvageOptions, type SalvageStep } from './salvage.js';
export { Store, type IdentityRequest, type OpenOptions, type StoreOptions, type VerifyOptions } from './store.js';
export { SecretReadStream, SecretWriteStream } from './stream.js';
