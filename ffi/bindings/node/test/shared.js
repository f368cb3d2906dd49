// What the tests share.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Backend, Store, pluginDigest } from 'keystead';

/** A dynamic plugin: the managed keyring once more. */
export function plugin() {
  const path = process.env.KEYSTEAD_PLUGIN;
  assert.ok(path, 'set KEYSTEAD_PLUGIN to libkeystead_managed.so, which `cargo build -p keystead-managed-plugin` makes');
  return path;
}

/** A directory for one test. */
export function scratch(t) {
  const directory = mkdtempSync(join(tmpdir(), 'keystead-test-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return directory;
}

export async function backends(directory) {
  return [
    await Backend.managed(join(directory, 'app.keyring')),
    await Backend.load(plugin(), {
      digest: await pluginDigest(plugin()),
      name: 'customer-kms',
      settings: { keyring: join(directory, 'customer.keyring') },
    }),
  ];
}

/** A store with the organization acme. */
export async function fresh(t, options = {}) {
  const directory = scratch(t);
  const path = join(directory, 'app.keystead');
  const given = { ...options, backends: await backends(directory) };
  const store = await Store.create(path, given);
  t.after(() => store.close());
  return { directory, path, given, store, acme: await store.createOrganization('acme') };
}

/** All of an async iterable. */
export async function all(iterable) {
  const found = [];
  for await (const one of iterable) found.push(one);
  return found;
}
