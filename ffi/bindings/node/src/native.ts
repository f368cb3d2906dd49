// libkeystead as JavaScript sees it: calls on threads of their own, errors as exceptions, structs as objects.

import koffi from 'koffi';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { errorOf } from './errors.js';

/** An address in the library's memory. */
export type Pointer = bigint;
/** What a function of the library takes. Buffers are passed by address, and must live until the call is over. */
export type Argument = Buffer | Uint8Array | Pointer | number | null;
type Type = string | { array: string; count: number };

interface Declared {
  constants: Record<string, number>;
  structs: Record<string, Record<string, Type>>;
  functions: Record<string, { result: string; parameters: Type[] }>;
}

// A call runs on a stack of this size, and not more of them at once than threads could serve; the rest waits its turn here.
const STACK_BYTES = 1 << 20;
const CALLS_MAX = 32;
koffi.config({ async_stack_size: STACK_BYTES, max_async_calls: 2 * CALLS_MAX });

const native = new URL('../native/', import.meta.url);
const declared: Declared = JSON.parse(readFileSync(new URL('interface.json', native), 'utf8'));
const library = koffi.load(fileURLToPath(new URL('libkeystead.so', native)));

const structs = new Map<string, ReturnType<typeof koffi.struct>>();
for (const [name, fields] of Object.entries(declared.structs)) {
  const types = Object.entries(fields).map(([field, type]) => {
    if (typeof type !== 'string') return [field, koffi.array(type.array, type.count)] as const;
    return [field, structs.get(type) ?? (isCallback(type) ? 'void *' : type)] as const;
  });
  structs.set(name, koffi.struct(name, Object.fromEntries(types)));
}

/** The only other types of ours in a struct are functions of the caller, given by address. */
function isCallback(type: string): boolean {
  return type.startsWith('keystead_') && !(type in declared.structs);
}

const functions = new Map<string, ReturnType<typeof library.func>>();

function functionOf(name: string): ReturnType<typeof library.func> {
  let found = functions.get(name);
  if (found === undefined) {
    const known = declared.functions[name];
    if (known === undefined) throw new Error(`libkeystead has no ${name}`);
    found = library.func(name, known.result, known.parameters as string[]);
    functions.set(name, found);
  }
  return found;
}

/** A constant of the header. */
export function constant(name: string): number {
  const value = declared.constants[name];
  if (value === undefined) throw new Error(`libkeystead has no ${name}`);
  return value;
}


/** Calls a function that is over at once, on this thread. */
export function now(name: string, ...given: Argument[]): any {
  return functionOf(name)(...given);
}

let calls = 0;
const waiting: (() => void)[] = [];

/** Calls a function on a thread of its own, and answers what it returns. */
export async function later(name: string, ...given: Argument[]): Promise<any> {
  if (calls >= CALLS_MAX) await new Promise<void>((resolve) => waiting.push(resolve));
  else calls += 1;
  try {
    return await new Promise((resolve, reject) => {
      functionOf(name).async(...given, (failed: unknown, result: unknown) => (failed ? reject(failed) : resolve(result)));
    });
  } finally {
    given.length = 0; // only now may its buffers go
    const next = waiting.shift();
    if (next) next();
    else calls -= 1;
  }
}

/** Calls a function that can fail: its last argument, which is not given here, is room for its error. */
export async function done(name: string, ...given: Argument[]): Promise<void> {
  const error = Buffer.alloc(8);
  if ((await later(name, ...given, error)) !== 0) throw errorOf(error.readBigUInt64LE());
}

/** The same on this thread, for what is over at once. */
export function doneNow(name: string, ...given: Argument[]): void {
  const error = Buffer.alloc(8);
  if (now(name, ...given, error) !== 0) throw errorOf(error.readBigUInt64LE());
}

/** Calls a function that gives an object, a size or a number of 64 bits: what it wrote where its last argument points. */
export async function produced(name: string, ...given: Argument[]): Promise<Pointer> {
  const out = Buffer.alloc(8);
  await done(name, ...given, out);
  return out.readBigUInt64LE();
}

/** A text for the library, as address and length; undefined becomes a null pointer. */
export function text(value: string | undefined): [Buffer | null, number] {
  if (value === undefined) return [null, 0];
  const data = Buffer.from(value, 'utf8');
  return [data, data.length];
}

/** The bytes of a value, without copying them. */
export function bytes(value: string | Uint8Array): [Uint8Array | null, number] {
  const data = typeof value === 'string' ? Buffer.from(value, 'utf8') : value;
  if (!(data instanceof Uint8Array)) throw new TypeError('a value is a string, a Buffer or a Uint8Array');
  return [data.length > 0 ? data : null, data.length];
}

/** A struct that begins with its size, with these fields; what is not said is 0. */
export function struct(name: string, fields: Record<string, unknown> = {}): Buffer {
  const type = structs.get(name)!;
  const memory = Buffer.alloc(koffi.sizeof(type));
  if (Object.keys(fields).length > 0) koffi.encode(memory, type, { ...zeros(name), ...fields });
  memory.writeUInt32LE(memory.length);
  return memory;
}

function zeros(name: string): Record<string, unknown> {
  const fields = Object.entries(declared.structs[name]!);
  return Object.fromEntries(
    fields.map(([field, type]) => {
      if (typeof type !== 'string') return [field, new Array(type.count).fill(0)];
      if (declared.structs[type]) return [field, zeros(type)];
      return [field, type.endsWith('*') || isCallback(type) ? null : 0];
    }),
  );
}

/** An array of structs without a size of their own. */
export function array(name: string, items: Record<string, unknown>[]): Buffer {
  const type = structs.get(name)!;
  const size = koffi.sizeof(type);
  const memory = Buffer.alloc(size * items.length);
  items.forEach((item, index) => koffi.encode(memory.subarray(index * size), type, item));
  return memory;
}

/** The address of a buffer, for a struct that points to it; whoever writes it there holds the buffer. */
export function address(buffer: Uint8Array | null): Pointer | null {
  return buffer === null ? null : koffi.address(buffer);
}

/** The fields of a struct. */
export function look(name: string, memory: Buffer | Pointer): any {
  return koffi.decode(memory, structs.get(name)!);
}

/** The structs of an array in the library's memory. */
export function lookAll(name: string, data: Pointer | null, length: number | bigint): any[] {
  const type = structs.get(name)!;
  const size = BigInt(koffi.sizeof(type));
  return Array.from({ length: Number(length) }, (_, index) => koffi.decode(data! + BigInt(index) * size, type));
}

/** A copy of bytes in the library's memory. */
export function copied(data: Pointer | null, length: number | bigint): Buffer {
  const copy = Buffer.allocUnsafeSlow(Number(length));
  if (copy.length > 0) copy.set(new Uint8Array(koffi.view(data!, copy.length)));
  return copy;
}

/** A `keystead_text` of a struct. */
export function textOf(value: { data: Pointer | null; len: number | bigint }): string {
  return optionalTextOf(value) ?? '';
}

/** The same, for one that may be missing. */
export function optionalTextOf(value: { data: Pointer | null; len: number | bigint }): string | undefined {
  if (value.data === null) return undefined;
  return koffi.decode.string(value.data, Number(value.len));
}

/** A text that ends with a zero byte. */
export function zeroTerminated(data: Pointer | null): string | undefined {
  return data === null ? undefined : koffi.decode.string(data);
}

const prototypes = {
  verify: koffi.proto('void', ['void *', 'uint64_t']),
  salvage: koffi.proto('void', ['void *', 'void *']),
  log: koffi.proto('void', ['void *', 'void *']),
  identityToken: koffi.proto('int32_t', ['void *', 'void *', 'void *', 'size_t', 'void *']),
};

/** Makes a function that the library may call, from any of its threads; JavaScript runs it on its own. */
export function callback(prototype: keyof typeof prototypes, called: (...given: any[]) => unknown): Pointer {
  return koffi.register(called, koffi.pointer(prototypes[prototype]));
}

/**
 * Lets the library tell a function how far a call has come. What the function throws cannot pass through the library: the function is
 * not told any more, and this rejects with it when the call is over.
 */
export async function watched<T>(
  prototype: keyof typeof prototypes,
  told: ((...given: any[]) => unknown) | undefined,
  call: (progress: Pointer | null) => Promise<T>,
): Promise<T> {
  if (told === undefined) return call(null);
  const thrown: unknown[] = [];
  const progress = callback(prototype, (...given) => {
    try {
      if (thrown.length === 0) told(...given);
    } catch (error) {
      thrown.push(error);
    }
  });
  try {
    const answer = await call(progress);
    if (thrown.length > 0) throw thrown[0];
    return answer;
  } finally {
    endCallback(progress);
  }
}

/** Memory of the library, to be written to while it waits. */
export function room(data: Pointer, length: number | bigint): Uint8Array {
  return new Uint8Array(koffi.view(data, Number(length)));
}

/** Ends a callback. */
export function endCallback(pointer: Pointer): void {
  koffi.unregister(pointer);
}

if (now('keystead_abi_version') !== constant('KEYSTEAD_ABI_VERSION')) {
  throw new Error('libkeystead has another version of its interface than its header');
}

/** The version of the library inside. */
export const version: string = zeroTerminated(now('keystead_version')) ?? '';
