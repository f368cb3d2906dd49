// Keys: brought by a plugin, rotated, disabled; epochs, jobs, the audit trail, verify.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import {
  Backend,
  BackendError,
  CallerError,
  ConfigError,
  ConflictError,
  IntegrityError,
  NotFoundError,
  OutageError,
  RevokedError,
  Store,
  pluginDigest,
} from 'keystead';
import { all, fresh, plugin, scratch } from './shared.js';

test('the first key that is brought takes over everything', async (t) => {
  const { acme } = await fresh(t);
  await acme.putAll(Array.from({ length: 300 }, (_, number) => ({ path: `s/${number}`, value: 'value' })));
  assert.equal(await acme.rewrapStatus(), undefined);
  const told = [];
  const alice = await acme.actingAs('alice@acme', 'ticket 4711');
  const job = await alice.keys.add('acme-cmk', 'customer-kms');
  const status = await job.wait({ timeoutMs: 60_000, onProgress: (status) => told.push(status) });
  assert.deepEqual([status.state, status.remaining, status.done, status.job], ['done', 0, 300, job.number]);
  assert.deepEqual(told.at(-1), status);
  assert.deepEqual((await acme.rewrapStatus()).done, 300);
  const [first, second] = await acme.epochs();
  assert.deepEqual([first.state, first.dataKeys, first.wrappedBy], ['retired', 0, []]);
  assert.deepEqual([second.state, second.dataKeys, second.key, second.cause], ['active', 300, 'acme-cmk', 'first-own-key']);
  assert.deepEqual([second.actor, second.reason, second.wrappedBy[0].key], ['alice@acme', 'ticket 4711', 'acme-cmk']);
  assert.equal((await acme.get('s/7')).value.toString(), 'value');
});

test('keys are rotated and disabled', async (t) => {
  const { acme } = await fresh(t);
  await acme.put('a', '1');
  await (await acme.keys.add('acme-cmk', 'customer-kms')).wait();
  await (await acme.keys.rotate('acme-cmk')).wait();
  await acme.keys.probe('acme-cmk');
  await (await acme.keys.add('second', 'customer-kms')).wait();
  await (await acme.keys.setDefault('second', { rewrap: true })).wait();
  await (await acme.keys.disable('acme-cmk', 'second')).wait();
  const keys = await acme.keys.list();
  assert.deepEqual(keys.map((key) => [key.name, key.state, key.isDefault]), [
    ['acme-cmk', 'disabled', false],
    ['managed', 'enabled', false],
    ['second', 'enabled', true],
  ]);
  await (await acme.keys.disableAll()).wait();
  assert.equal((await acme.epochs()).at(-1).key, 'managed');
  assert.equal((await acme.get('a')).value.toString(), '1');
  await assert.rejects(acme.keys.rotate('second'), (error) => error instanceof ConflictError && error.code === 'KEY_REFUSED');
  await assert.rejects(acme.rewrapJob(), (error) => error instanceof NotFoundError && error.code === 'NO_JOB');
});

test('a second key wraps every live epoch, and is removed', async (t) => {
  const { acme } = await fresh(t);
  await acme.put('a', '1');
  await (await acme.keys.add('acme-cmk', 'customer-kms')).wait();
  await acme.keys.add('paris', 'customer-kms');
  assert.equal(await acme.keys.second(), undefined);
  await assert.rejects(acme.keys.setSecond('acme-cmk'), (error) => error.code === 'KEY_REFUSED');
  await (await acme.keys.setSecond('paris')).wait();
  assert.deepEqual(await acme.keys.second(), { key: 'paris', eitherOpens: false, wrapped: 1, missing: 0 });
  await (await acme.keys.rotate('acme-cmk')).wait();
  assert.deepEqual((await acme.epochs()).at(-1).wrappedBy.map((wrap) => wrap.key), ['acme-cmk', 'paris']);
  await acme.keys.removeSecond();
  await (await acme.keys.setSecond('paris', { eitherOpens: true })).wait();
  assert.equal((await acme.keys.second()).eitherOpens, true);
  await acme.keys.removeSecond();
  assert.equal(await acme.keys.second(), undefined);
});

test('a plugin that waits for its first use is refused there, and the others are not concerned', async (t) => {
  const directory = scratch(t);
  const right = await pluginDigest(plugin());
  await assert.rejects(Backend.load(plugin(), { digest: right, atFirstUse: true }), CallerError);
  const late = (name, digest) =>
    Backend.load(plugin(), { digest, name, settings: { keyring: join(directory, 'late.keyring') }, atFirstUse: true });
  const backends = [
    await Backend.managed(join(directory, 'app.keyring')),
    await late('wrong', '00'.repeat(32)),
    await late('right', right),
  ];
  assert.deepEqual(backends[2].description, {});
  const store = await Store.create(join(directory, 'late.keystead'), { backends });
  t.after(() => store.close());
  const acme = await store.createOrganization('acme');
  const refused = (error) => error instanceof ConfigError && error.code === 'KMS_INVALID_CONFIG';
  await assert.rejects(acme.keys.add('cmk', 'wrong'), refused);
  await (await acme.keys.add('cmk', 'right')).wait();
});

test('a store that was rolled back is refused by its checkpoint', async (t) => {
  const { directory, path, given, store, acme } = await fresh(t);
  const old = join(directory, 'old.keystead');
  await acme.put('a', '1');
  await store.close();
  copyFileSync(path, old);
  const again = await Store.open(path, given);
  await (await again.organization('acme')).put('a', '2');
  const checkpoint = await again.checkpoint();
  await again.close();
  await (await Store.open(path, { ...given, checkpoint })).close();
  const refused = (error) => error instanceof IntegrityError && error.code === 'BEHIND_CHECKPOINT';
  await assert.rejects(Store.open(old, { ...given, checkpoint }), refused);
  await assert.rejects(Store.open(path, { ...given, checkpoint: '' }), CallerError);
});

test('a job is done here when nothing goes on in the background', async (t) => {
  const { acme } = await fresh(t, { backgroundRewrap: false });
  await acme.put('a', '1');
  const job = await acme.keys.add('acme-cmk', 'customer-kms');
  await assert.rejects(job.wait({ timeoutMs: 10 }), (error) => error instanceof OutageError && error.code === 'TIMED_OUT');
  await assert.rejects(job.wait({ signal: AbortSignal.timeout(10) }));
  assert.equal((await job.runHere()).state, 'done');
});

test('the audit trail tells who did what', async (t) => {
  const { acme } = await fresh(t);
  await (await acme.actingAs('alice@acme', 'ticket 4711')).put('prod/db/password', 'correct horse');
  const records = await all(acme.audit());
  const last = records.at(-1);
  assert.equal(records[0].event, 'OrganizationCreated');
  assert.deepEqual([last.event, last.actor, last.reason], ['VersionPut', 'alice@acme', 'ticket 4711']);
  assert.deepEqual(last.details, { path: 'prod/db/password', version: 1 });
  assert.deepEqual(await acme.auditHead(), { sequence: last.sequence, hash: last.hash });
  assert.deepEqual(await all(acme.audit(last.sequence - 1)), [last]);
});

test('a store is verified', async (t) => {
  const { store, acme } = await fresh(t);
  await acme.put('a', '1');
  const told = [];
  const report = await store.verify({ openValues: true, onProgress: (lookedAt) => told.push(lookedAt) });
  assert.deepEqual([report.problems, report.unopened, report.valuesOpened, report.organizations], [[], [], 1, 1]);
  assert.deepEqual([report.complete, report.wraps, report.chunks], [true, 1, 0]);
  assert.ok(report.blocks > 0);
  assert.deepEqual(told, [1]);
});

// It used to end the program, as an exception that nobody caught.
test('what is thrown where progress is told rejects the verification at its end', async (t) => {
  const { store, acme } = await fresh(t);
  await acme.put('a', '1');
  const thrown = new Error('enough');
  const onProgress = () => {
    throw thrown;
  };
  await assert.rejects(store.verify({ onProgress }), (error) => error === thrown);
  assert.equal((await store.verify()).versions, 1);
});

test('the application mints tokens for a plugin that logs in with them', async (t) => {
  const directory = scratch(t);
  const path = process.env.KEYSTEAD_MINTING_PLUGIN;
  const minting = await Backend.load(path, { digest: await pluginDigest(path) });
  const managed = await Backend.managed(join(directory, 'app.keyring'));
  const asked = new Set();
  let thrown;
  const identityToken = (request) => {
    asked.add(JSON.stringify(request));
    if (thrown !== undefined) throw thrown;
    return `token for ${request.organization}`;
  };
  const store = await Store.create(join(directory, 'm'), { backends: [managed, minting], kmsAttemptsMax: 1, identityToken });
  t.after(() => store.close());
  const acme = await store.createOrganization('acme');
  await acme.put('a', 'correct horse');
  await (await acme.keys.add('own', 'minting')).wait();
  assert.deepEqual([...asked], ['{"audience":"keystead:tests","organization":"acme","key":"own"}']);
  await store.forgetEpochKeys();
  assert.equal((await acme.get('a')).value.toString(), 'correct horse');
  assert.throws(() => new BackendError('NO_SUCH_CODE'), TypeError);
  for (const [what, kind, code] of [
    [new Error('secret horse'), OutageError, 'KMS_UNAVAILABLE'],
    [new BackendError('ACCESS_DENIED', 'secret horse'), RevokedError, 'KMS_ACCESS_DENIED'],
    ['secret horse', OutageError, 'KMS_UNAVAILABLE'],
  ]) {
    thrown = what;
    await store.forgetEpochKeys();
    await assert.rejects(acme.get('a'), (error) => {
      assert.ok(error instanceof kind && error.code === code, `${error.code} is ${code}`);
      return !error.message.includes('secret horse');
    });
  }
});

test('a plugin of another digest does not run', async () => {
  const refused = (error) => error instanceof ConfigError && error.code === 'PLUGIN_REFUSED';
  await assert.rejects(Backend.load(plugin(), { digest: '00'.repeat(32) }), refused);
  await assert.rejects(Backend.load(plugin(), {}), refused);
  await assert.rejects(Backend.load(plugin(), { digest: '00' }), TypeError);
});

test('a backend says what it is', async (t) => {
  const { given } = await fresh(t);
  assert.equal(given.backends[1].name, 'customer-kms');
  assert.equal(given.backends[1].description.name, 'managed');
});

test('the example runs', async () => {
  const example = fileURLToPath(new URL('../examples/bring-a-key.js', import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [example, plugin()]);
  assert.match(stdout, /1 managed retired, 0 data keys\n2 acme-cmk active, 502 data keys\n$/);
});
