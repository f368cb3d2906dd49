// From a damaged file to a new store, and what was lost on the way.

import { type Backend } from './backend.js';
import { address, look, produced, struct, text, textOf, watched, type Pointer } from './native.js';
import { salvageReport, type SalvageReport } from './records.js';
import { withOptions, type StoreOptions } from './store.js';

/** What is salvaged, and how. */
export interface SalvageOptions {
  /** Those that the store is opened with. One that does not answer is in the report, not an exception. */
  backends?: Backend[];
  /** Open every value whose epoch key can be had, as is done unless told otherwise; without, a value is right when its tags are. */
  openValues?: boolean;
  /** Keep values of which nothing left says whether they were destroyed. */
  keepUndecided?: boolean;
  /** `Store.id()`, for a file of which neither copy of the header is whole. */
  storeId?: Uint8Array;
  /** The deadline of one KMS call. Default: 10 seconds. */
  kmsTimeoutMs?: number;
  /** As in `StoreOptions`. */
  identityToken?: StoreOptions['identityToken'];
  /** Told how far it is. The salvage waits for it, and rejects at its end with what it throws; the new store is there then. */
  onProgress?: (step: SalvageStep) => void;
}

/** How far a salvage is. */
export interface SalvageStep {
  /** What it is doing, for people. */
  phase: string;
  done: number;
  /** Of how much, where that is known. */
  total?: number;
}

/**
 * Copies whatever is provably right in a damaged store into a new one, and says what is lost, each version by name. The damaged
 * file is only read; the new one appears when it is whole, with the same id, organizations, histories and keys. Take a new
 * checkpoint, and destroy the damaged file when it is no longer needed: both hold the keys to their wraps.
 *
 * A file that comes from elsewhere, and may have been made to do harm, is for the command `keystead salvage`.
 */
export async function salvage(damaged: string, renewed: string, options: SalvageOptions = {}): Promise<SalvageReport> {
  const { openValues = true, keepUndecided = false, storeId, onProgress, ...store } = options;
  if (storeId !== undefined && storeId.length !== 16) throw new TypeError('the id of a store has 16 bytes');
  const id = storeId === undefined ? null : Buffer.from(storeId);
  const how = struct('keystead_salvage_options', {
    without_opening: openValues ? 0 : 1,
    keep_undecided: keepUndecided ? 1 : 0,
    store_id: address(id),
  });
  const told =
    onProgress &&
    ((_context: unknown, pointer: Pointer) => {
      const step = look('keystead_salvage_step', pointer);
      const total = Number(step.total);
      onProgress({ phase: textOf(step.phase), done: Number(step.done), ...(total > 0 && { total }) });
    });
  const held = [id, how];
  try {
    return await watched('salvage', told, (progress) =>
      withOptions(store, async (given) =>
        salvageReport(await produced('keystead_salvage', ...text(damaged), ...text(renewed), given, how, progress, null)),
      ),
    );
  } finally {
    held.length = 0; // only now may what the options point to go
  }
}
