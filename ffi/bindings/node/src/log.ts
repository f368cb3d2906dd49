// What the library logs, told to a function.

import { Handle } from './handle.js';
import { callback, constant, endCallback, look, produced, textOf, type Pointer } from './native.js';

const levels = ['error', 'warn', 'info', 'debug'] as const;

/** How much is told: what is named, and what weighs more. */
export type LogLevel = (typeof levels)[number];

/** What was logged. Nothing of it is a secret. */
export interface LogRecord {
  level: LogLevel;
  /** Which part of the library says it; `'keystead::plugin'` for what a plugin says. */
  target: string;
  /** What happened, in words. */
  message: string;
  /** Of what: `{ organization: 'acme', error: '…' }`. */
  fields: Record<string, unknown>;
}

/** What is told. */
export interface LogOptions {
  /** Default: `'warn'`. */
  level?: LogLevel;
}

// A log that nobody holds goes on.
let open: Log | undefined;

/** The log of this process, while it is open. */
export class Log extends Handle {
  readonly #callback: Pointer;

  private constructor(pointer: Pointer, told: Pointer) {
    super(pointer, 'keystead_log_free');
    this.#callback = told;
  }

  /** @internal */
  static async open(listener: (record: LogRecord) => void, options: LogOptions): Promise<Log> {
    const level = levels.indexOf(options.level ?? 'warn') + 1;
    if (level === 0) throw new TypeError(`a level is one of ${levels.join(', ')}`);
    const told = callback('log', (_context, given) => {
      try {
        const record = look('keystead_log_record', given);
        listener({
          level: levels.find((name) => constant(`KEYSTEAD_LOG_${name.toUpperCase()}`) === record.level) ?? 'debug',
          target: textOf(record.target),
          message: textOf(record.message),
          fields: JSON.parse(textOf(record.fields_json)),
        });
      } catch (thrown) {
        // What is thrown here cannot go through the library: it is an uncaught exception, as in any listener.
        process.nextTick(() => {
          throw thrown;
        });
      }
    });
    try {
      open = new Log(await produced('keystead_log_open', level, told, null), told);
      return open;
    } catch (refused) {
      endCallback(told);
      throw refused;
    }
  }

  /** Ends it. What waits is told first; when this resolves, nothing is told any more. Doing it twice does nothing. */
  async close(): Promise<void> {
    if (this.isClosed) return;
    await this.end();
    endCallback(this.#callback);
    if (open === this) open = undefined;
  }

  /** For `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Has whatever the library logs, for every store of this process, told to a function until the log is closed. There is one in a
 * process: it rejects with `ConflictError` when there is one already. It keeps no program running.
 *
 *     await logTo(({ level, message, fields }) => logger[level](fields, message));
 */
export function logTo(listener: (record: LogRecord) => void, options: LogOptions = {}): Promise<Log> {
  return Log.open(listener, options);
}
