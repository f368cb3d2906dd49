// Secrets: what is written is read, and what goes wrong has its own exception.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { CallerError, ConflictError, NotFoundError } from 'keystead';
import { all, fresh } from './shared.js';

const rejects = (promise, kind, code) =>
  assert.rejects(promise, (error) => {
    assert.ok(error instanceof kind, `${error} is a ${kind.name}`);
    assert.equal(error.code, code);
    return true;
  });

test('what was put is read, with what stands beside it', async (t) => {
  const { acme } = await fresh(t);
  const labels = { owner: 'team-db', empty: '' };
  const version = await acme.put('prod/db/password', 'correct horse', { labels, contentType: 'text/plain' });
  const secret = await acme.get('prod/db/password');
  assert.equal(version, 1);
  assert.equal(secret.value.toString(), 'correct horse');
  assert.deepEqual({ ...secret.labels }, labels);
  assert.equal(secret.contentType, 'text/plain');
  assert.ok(Math.abs(secret.createdAt.getTime() - Date.now()) < 60_000);
});

test('a secret that is logged does not tell its value', async (t) => {
  const { acme } = await fresh(t);
  const given = Buffer.from('correct horse');
  await acme.put('a', given, { contentType: 'text/plain' });
  const secret = await acme.get('a');
  const forms = ['utf8', 'hex', 'base64', 'latin1'].map((encoding) => given.toString(encoding));
  const numbers = [...given];
  forms.push(numbers.join(','), numbers.join(', '), numbers.map((byte) => byte.toString(16)).join(' '), '"0":99', 'Buffer');
  for (const text of [
    inspect(secret, { showHidden: true, depth: Infinity, getters: true }),
    inspect({ secret: [secret] }, { depth: Infinity }),
    JSON.stringify(secret),
    JSON.stringify({ secret, ...secret }),
    String(secret),
    inspect(structuredClone(secret)),
    inspect({ ...secret }),
  ]) {
    for (const form of forms) assert.ok(!text.includes(form), text);
  }
  const { value, ...rest } = secret;
  assert.ok(value.equals(given));
  assert.deepEqual(Object.keys(rest), ['version', 'sizeBytes', 'labels', 'createdAt', 'contentType']);
  assert.equal(JSON.parse(JSON.stringify(secret)).sizeBytes, 13);
});

test('any bytes come back as they were', async (t) => {
  const { acme } = await fresh(t);
  for (const value of [Buffer.alloc(0), Buffer.from([0]), Buffer.alloc(65_537, 'x'), new Uint8Array([1, 2, 3]), Buffer.alloc(9 << 20, 7)]) {
    await acme.put('a', value);
    assert.ok((await acme.get('a')).value.equals(value));
  }
  await assert.rejects(acme.put('a', 7), TypeError);
});

test('a put that expects another version is refused', async (t) => {
  const { acme } = await fresh(t);
  const v1 = await acme.put('a', '1', { expect: 'new' });
  await rejects(acme.put('a', '2', { expect: 'new' }), ConflictError, 'VERSION_MISMATCH');
  assert.equal(await acme.put('a', '2', { expect: v1 }), 2);
  await assert.rejects(acme.put('a', '2', { expect: 0 }), RangeError);
});

test('what is not there, and what is against the rules, is told apart', async (t) => {
  const { acme } = await fresh(t);
  await rejects(acme.get('nothing/here'), NotFoundError, 'SECRET_NOT_FOUND');
  await rejects(acme.put('a//b', ''), CallerError, 'INVALID_PATH');
  await acme.put('a', '1');
  await rejects(acme.get('a', 9), NotFoundError, 'VERSION_NOT_FOUND');
});

test('a batch is written whole or not at all', async (t) => {
  const { acme } = await fresh(t);
  assert.deepEqual(await acme.putAll({ a: '1', b: '2' }), [1, 1]);
  await rejects(acme.putAll([{ path: 'a', value: '3' }, { path: 'c', value: '4', expect: 7 }]), ConflictError, 'VERSION_MISMATCH');
  assert.equal((await acme.get('a')).value.toString(), '1');
  assert.deepEqual(await acme.putAll([{ path: 'a', value: '5' }, { path: 'a', value: '6' }]), [2, 3]);
  assert.deepEqual(await acme.putAll([]), []);
});

test('lists go on beyond a page', async (t) => {
  const { acme } = await fresh(t);
  const paths = Array.from({ length: 2500 }, (_, number) => `many/${String(number).padStart(5, '0')}`);
  await acme.putAll(paths.map((path) => ({ path, value: '' })));
  await acme.put('other', '');
  assert.deepEqual((await all(acme.list('many/'))).map((info) => info.path), paths);
  assert.equal((await all(acme.list())).length, 2501);
});

test('deleted versions come back, destroyed ones do not, and retention keeps so many', async (t) => {
  const { acme } = await fresh(t);
  await acme.put('a', '1');
  await acme.put('a', '2');
  await acme.delete('a', 2);
  await rejects(acme.get('a'), NotFoundError, 'VERSION_DELETED');
  assert.equal((await acme.info('a')).deleted, 1);
  await acme.undelete('a', 2);
  await acme.destroy('a', 1);
  const history = await all(acme.history('a'));
  assert.deepEqual(history.map((version) => version.state), ['destroyed', 'live']);
  assert.ok(history[0].stateAt instanceof Date && !('stateAt' in history[1]));
  await acme.setRetention('a', 1);
  await acme.put('a', '3');
  assert.equal((await acme.info('a')).retention, 1);
  await rejects(acme.get('a', 2), NotFoundError, 'VERSION_DESTROYED');
  await acme.setRetention('a', undefined);
  assert.ok(!('retention' in (await acme.info('a'))));
  await assert.rejects(acme.setRetention('a', 0), RangeError);
});

test('a large value goes through streams', async (t) => {
  const { acme } = await fresh(t);
  const value = Buffer.alloc(3 << 20, 'all work and no play ');
  const writing = acme.createWriteStream('large', { contentType: 'application/octet-stream' });
  await pipeline(Readable.from([value.subarray(0, 1), value.subarray(1, 2_000_000), value.subarray(2_000_000)]), writing);
  assert.equal(writing.version, 1);
  const reading = acme.createReadStream('large');
  assert.equal((await reading.info()).sizeBytes, value.length);
  assert.ok((await buffer(reading)).equals(value));
  await rejects(buffer(acme.createReadStream('nothing')), NotFoundError, 'SECRET_NOT_FOUND');
});

test('a stream that is destroyed leaves nothing', async (t) => {
  const { acme } = await fresh(t);
  const writing = acme.createWriteStream('large');
  const parts = async function* () {
    yield Buffer.alloc(2_000_000);
    throw new Error('enough');
  };
  await assert.rejects(pipeline(parts, writing), /enough/);
  await rejects(acme.get('large'), NotFoundError, 'SECRET_NOT_FOUND');
});
