// Re-wrap jobs: to watch, to wait for, to do.

import { setTimeout as sleep } from 'node:timers/promises';
import { OutageError, timedOut } from './errors.js';
import { Member, type Family } from './handle.js';
import { now, type Pointer } from './native.js';
import { rewrapStatus, type RewrapStatus } from './records.js';

/** How a job is waited for. */
export interface WaitOptions {
  /** At most so long; without end unless told otherwise. */
  timeoutMs?: number;
  /** Told how the job stands whenever that has changed, at most ten times a second. */
  onProgress?: (status: RewrapStatus) => void;
  /** Ends the wait; the job goes on. */
  signal?: AbortSignal;
}

const LOOK_EVERY_MS = 100;

/** A re-wrap job. It goes on without this. */
export class RewrapJob extends Member {
  readonly #status: () => Promise<RewrapStatus | undefined>;
  /** Its number in its organization; undefined when the change moved nothing, and there is nothing to wait for. */
  readonly number?: number;

  /** @internal */
  constructor(pointer: Pointer, family: Family, status: () => Promise<RewrapStatus | undefined>) {
    super(pointer, 'keystead_rewrap_job_free', family);
    this.#status = status;
    const number = Number(now('keystead_rewrap_job_number', pointer));
    if (number !== 0) this.number = number;
  }

  /**
   * Waits until the job is done. A job that is blocked goes on trying, and this goes on waiting. No thread waits with it:
   * the job is looked at ten times a second.
   *
   * Rejects with `OutageError` of code `TIMED_OUT`, and when the store is closed meanwhile; the job goes on.
   */
  async wait(options: WaitOptions = {}): Promise<RewrapStatus> {
    const { timeoutMs, onProgress, signal } = options;
    const until = timeoutMs === undefined ? Infinity : performance.now() + timeoutMs;
    let told = '';
    const tell = (status: RewrapStatus | undefined): void => {
      const text = JSON.stringify(status);
      if (!status || status.job !== (this.number ?? 0) || text === told) return;
      told = text;
      onProgress?.(status);
    };
    for (;;) {
      signal?.throwIfAborted();
      const done = await this.#doneNow();
      if (done) {
        tell(done);
        return done;
      }
      if (onProgress) tell(await this.#status());
      const left = until - performance.now();
      if (left <= 0) throw timedOut();
      await sleep(Math.min(left, LOOK_EVERY_MS), undefined, { signal });
    }
  }

  /**
   * Does the job's work on a thread of its own until it is done or blocked. For stores that were opened with
   * `backgroundRewrap: false`.
   */
  async runHere(): Promise<RewrapStatus> {
    return rewrapStatus(await this.produced('keystead_rewrap_run_here', null, null));
  }

  async #doneNow(): Promise<RewrapStatus | undefined> {
    try {
      return rewrapStatus(await this.produced('keystead_rewrap_wait', 0, null, null));
    } catch (error) {
      if (error instanceof OutageError && error.code === 'TIMED_OUT') return undefined;
      throw error;
    }
  }
}
