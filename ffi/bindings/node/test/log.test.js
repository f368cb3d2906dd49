// What the library logs, told to a function.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { Backend, ConflictError, Store, logTo } from 'keystead';
import { scratch } from './shared.js';

async function makeAKeyring(directory, name) {
  const managed = await Backend.managed(join(directory, `${name}.keyring`));
  const store = await Store.create(join(directory, name), { backends: [managed] });
  await store.createOrganization('acme');
  await store.close();
}

test('what happens is told until the log is closed', async (t) => {
  const directory = scratch(t);
  const told = [];
  const log = await logTo((record) => told.push(record), { level: 'info' });
  await assert.rejects(logTo(() => {}), (error) => error instanceof ConflictError && error.code === 'LOG_TAKEN');
  await makeAKeyring(directory, 'a');
  await log.close();
  await log.close();
  await makeAKeyring(directory, 'b');
  assert.equal(told.length, 1);
  const [{ level, target, message, fields }] = told;
  assert.deepEqual([level, fields], ['warn', { organization: 'acme', key: 'managed' }]);
  assert.match(target, /^keystead::/);
  assert.match(message, /^made the keyring .*a\.keyring; back it up/);

  const again = await logTo((record) => told.push(record), { level: 'error' });
  await makeAKeyring(directory, 'c');
  await again.close();
  assert.equal(told.length, 1);
  await assert.rejects(logTo(() => {}, { level: 'loud' }), TypeError);
});

test('a program that forgets its log ends well', async (t) => {
  const directory = scratch(t);
  const program = `
    import { Backend, Store, logTo } from 'keystead';
    await logTo((record) => console.log(record.level));
    const managed = await Backend.managed(${JSON.stringify(join(directory, 'k'))});
    const store = await Store.create(${JSON.stringify(join(directory, 's'))}, { backends: [managed] });
    await (await store.createOrganization('acme')).put('a', '2');`;
  const options = { cwd: new URL('..', import.meta.url), timeout: 60_000 };
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], options);
  assert.equal(stdout, 'warn\n');
});
