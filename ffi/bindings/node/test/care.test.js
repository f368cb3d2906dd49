// What is done to files: a damaged store is salvaged, a keyring is looked after.

import assert from 'node:assert/strict';
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ConfigError, ConflictError, Keyring, RevokedError, Store, salvage } from 'keystead';
import { fresh, scratch } from './shared.js';

test('what is whole in a damaged file is salvaged, and what is lost is named', async (t) => {
  const { store, acme, path, given, directory } = await fresh(t);
  const { backends } = given;
  const renewed = join(directory, 'new.keystead');
  await acme.put('small', 'value');
  await acme.put('large', Buffer.alloc(3_000_000));
  const id = await store.id();
  await store.close();
  const told = [];
  const whole = await salvage(path, renewed, { backends, storeId: id, onProgress: (step) => told.push(step) });
  assert.deepEqual([whole.lost, whole.secrets, whole.opened], [[], 2, 2]);
  assert.ok(whole.storeId.equals(id));
  assert.ok(told.length > 0 && told.every((step) => step.phase && step.done <= (step.total ?? Infinity)));
  await assert.rejects(salvage(path, renewed, { backends }), ConflictError);
  rmSync(renewed);

  const file = openSync(path, 'r+');
  writeSync(file, Buffer.alloc(1 << 20), 0, 1 << 20, 5 << 20); // behind the journal, in the middle of the large value
  closeSync(file);
  const report = await salvage(path, renewed, { backends });
  const thrown = new Error('of the application');
  const refuse = () => {
    throw thrown;
  };
  await assert.rejects(salvage(path, join(directory, 'other'), { onProgress: refuse }), (error) => error === thrown);
  const lost = report.lost.find((loss) => loss.path === 'large');
  assert.deepEqual([lost.kind, lost.organization, lost.version], ['version', 'acme', 1]);
  const again = await Store.open(renewed, given);
  t.after(() => again.close());
  const left = await again.organization('acme');
  assert.equal((await left.get('small')).value.toString(), 'value');
  await assert.rejects(left.get('large'), (error) => error.code === 'VERSION_LOST');
});

test('a keyring is made, rotated, disabled and resealed', async (t) => {
  const directory = scratch(t);
  const path = join(directory, 'sealed.keyring');
  const keyring = await Keyring.create(path, { passphrase: 'correct horse' });
  await assert.rejects(Keyring.create(path), ConfigError);
  await assert.rejects(Keyring.create(join(directory, 'other'), { passphrase: '' }), ConfigError);
  await assert.rejects(Keyring.open(path, { passphrase: 'another horse' }), (error) => error.code === 'KMS_UNAUTHENTICATED');
  const store = await Store.create(join(directory, 'app.keystead'), { backends: [await keyring.backend()] });
  t.after(() => store.close());
  const acme = await store.createOrganization('acme');
  await acme.put('a', '1');
  assert.equal(await keyring.rotate(), 2);
  const status = await keyring.status();
  assert.deepEqual([status.enabled, status.sealed, status.id.length], [true, true, 32]);
  assert.deepEqual(status.versions.map((version) => version.number), [1, 2]);
  await keyring.disable();
  await store.forgetEpochKeys();
  await assert.rejects(acme.get('a'), RevokedError);
  await keyring.enable();
  await store.forgetEpochKeys(); // and that it was refused
  assert.equal((await acme.get('a')).value.toString(), '1');
  const resealed = await keyring.reseal({});
  assert.equal((await resealed.status()).sealed, false);
  await assert.rejects(keyring.rotate(), ConfigError);
});
