// Creates a store, puts, brings a key by a dynamic plugin, waits for the re-wrap, reads, prints the epochs.
//
//     node examples/bring-a-key.js /absolute/path/of/libkeystead_managed.so
//
// The plugin here is the managed keyring once more, as the customer's; libkeystead_aws_kms.so is loaded in the same way.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Backend, Store, pluginDigest } from 'keystead';

const [, , plugin] = process.argv;
const directory = await mkdtemp(join(tmpdir(), 'keystead-'));
try {
  const managed = await Backend.managed(join(directory, 'app.keyring'));
  const customer = await Backend.load(plugin, {
    digest: await pluginDigest(plugin), // an application has the digest from whoever built the plugin
    name: 'customer-kms',
    settings: { keyring: join(directory, 'customer.keyring'), create: true },
  });
  const store = await Store.create(join(directory, 'app.keystead'), { backends: [managed, customer] });
  try {
    const acme = await (await store.createOrganization('acme')).actingAs('alice@acme', 'ticket 4711');
    const v1 = await acme.put('prod/db/password', 'correct horse', { labels: { owner: 'team-db' } });
    await acme.put('prod/db/password', 'battery staple', { expect: v1 });
    await acme.putAll(Array.from({ length: 500 }, (_, number) => ({ path: `prod/token/${number}`, value: `token ${number}` })));

    const job = await acme.keys.add('acme-cmk', 'customer-kms');
    await job.wait({
      timeoutMs: 60_000,
      onProgress: (status) => console.log(`${status.done} of ${status.total} data keys moved`),
    });

    assert.equal((await acme.get('prod/db/password')).value.toString(), 'battery staple');
    assert.equal((await acme.get('prod/db/password', v1)).value.toString(), 'correct horse');
    for (const epoch of await acme.epochs()) {
      console.log(`${epoch.number} ${epoch.key} ${epoch.state}, ${epoch.dataKeys} data keys`);
    }
  } finally {
    await store.close();
  }
} finally {
  await rm(directory, { recursive: true });
}
