// What all handles have in common: calls in flight, and the end.

import { closedError } from './errors.js';
import { done, later, produced, type Argument, type Pointer } from './native.js';

const forgotten = new FinalizationRegistry<{ pointer: Pointer; free: string }>(({ pointer, free }) => {
  void later(free, pointer);
});

/** An object of the library. It is freed when it was closed and no call on it is in flight, or when nothing refers to it. */
export abstract class Handle {
  #pointer: Pointer | null;
  readonly #free: string;
  #calls = 0;
  #idle: (() => void)[] = [];

  constructor(pointer: Pointer, free: string) {
    this.#pointer = pointer;
    this.#free = free;
    forgotten.register(this, { pointer, free }, this);
  }

  /** Calls a function of this handle that can fail. */
  protected call(name: string, ...given: Argument[]): Promise<void> {
    return this.#with((pointer) => done(name, pointer, ...given));
  }

  /** Calls a function of this handle that gives an object or a number. */
  protected produced(name: string, ...given: Argument[]): Promise<Pointer> {
    return this.#with((pointer) => produced(name, pointer, ...given));
  }

  /** Lets somebody else use the address for the time of one call. */
  protected lend<T>(use: (pointer: Pointer) => Promise<T>): Promise<T> {
    return this.#with(use);
  }

  /** The address, for what is over at once. */
  protected get pointer(): Pointer {
    if (this.#pointer === null) throw closedError(this.constructor.name);
    return this.#pointer;
  }

  protected get isClosed(): boolean {
    return this.#pointer === null;
  }

  /** Ends this handle: further calls throw, and it is freed when those in flight are over. */
  protected async end(before?: (pointer: Pointer) => Promise<void>): Promise<void> {
    const pointer = this.#pointer;
    if (pointer === null) return;
    this.#pointer = null;
    forgotten.unregister(this);
    try {
      await before?.(pointer);
    } finally {
      if (this.#calls > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
      await later(this.#free, pointer);
    }
  }

  async #with<T>(use: (pointer: Pointer) => Promise<T>): Promise<T> {
    const pointer = this.pointer;
    this.#calls += 1;
    try {
      return await use(pointer);
    } finally {
      this.#calls -= 1;
      if (this.#calls === 0) this.#idle.splice(0).forEach((resolve) => resolve());
    }
  }
}

/** The handles of one open store: they end together with it, so that the file is released. */
export class Family {
  readonly #members = new Set<WeakRef<Member>>();
  readonly #gone = new FinalizationRegistry<WeakRef<Member>>((member) => this.#members.delete(member));

  add(member: Member): void {
    const reference = new WeakRef(member);
    this.#members.add(reference);
    this.#gone.register(member, reference);
  }

  async end(): Promise<void> {
    const members = [...this.#members].map((reference) => reference.deref());
    await Promise.all(members.map((member) => member?.close()));
  }
}

/** A handle on something within a store. */
export abstract class Member extends Handle {
  protected readonly family: Family;

  constructor(pointer: Pointer, free: string, family: Family) {
    super(pointer, free);
    this.family = family;
    family.add(this);
  }

  /** Frees this handle now, rather than when nothing refers to it. Doing it twice does nothing. */
  close(): Promise<void> {
    return this.end();
  }

  /** For `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.end();
  }
}
