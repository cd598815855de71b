'use strict';

// bcoin as a node for tests/peers.rs: on regtest, in memory, on loopback. It dials nobody and asks nobody for its own
// address, so that nothing leaves the machine. Ports may be 0; the log tells which ones they became.

const [prefix, port, httpPort] = process.argv.slice(2);

const FullNode = require('bcoin/lib/node/fullnode');

const node = new FullNode({
  network: 'regtest',
  memory: true,
  prefix,
  workers: false,
  listen: true,
  host: '127.0.0.1',
  httpHost: '127.0.0.1',
  httpPort: Number(httpPort),
  apiKey: 'test',
  logConsole: true,
  logLevel: 'debug'
});

node.pool.options.port = Number(port);
node.pool.fillOutbound = () => {};
node.pool.discoverExternal = async () => {};
node.pool.discoverSeeds = async () => {};

process.on('unhandledRejection', (error) => {
  throw error;
});

(async () => {
  await node.ensure();
  await node.open();
  await node.connect();
  node.startSync();
})();
