//! What `--help` says below the flags.

/// Below the flags of `node`.
pub const NODE_HELP: &str = "\
Examples:
  blocktorrent node
  blocktorrent node --network signet --connect relay.example --connect 203.0.113.5:8433
  mkdir -p ~/.blocktorrent && blocktorrent node --print-config > ~/.blocktorrent/blocktorrent.toml

Default ports:
  network     control (TCP) and data (UDP)   P2P (TCP)   RPC (TCP, loopback)
  main         8433                           8434        8432
  test        18433                          18434       18432
  testnet4    48433                          48434       48432
  signet      38433                          38434       38432
  regtest     18544                          18545       18543

Files, below the datadir and the network's folder in it:
  .lock         held while a node runs there
  node.json     process id and the addresses that the node listens on
  .cookie       user and password for RPC, new at each start, readable by its owner only
  quic.key      the private key of private links, made once they are on, readable by its owner only
  blocks/       recent blocks
  headers.dat   the header chain

A start near the tip, taken from a bitcoind of your own. These lines need jq and a POSIX shell; they serve main, \
signet and regtest (on test and testnet4 BITS may be those of a block that came late):
  height=$(($(bitcoin-cli getblockcount) - 6))
  # The block after a period's last has other BITS: then begin one block earlier.
  [ $(((height + 1) % 2016)) -ne 0 ] || height=$((height - 1))
  hash=$(bitcoin-cli getblockhash $height)
  first=$(bitcoin-cli getblockhash $((height / 2016 * 2016)))
  bits=$(bitcoin-cli getblockheader $hash | jq -r .bits)
  epoch=$(bitcoin-cli getblockheader $first | jq -r .time)
  time=$(bitcoin-cli getblockheader $hash | jq -r .time)
  blocktorrent node --trusted-start $height,$hash,$bits,$epoch,$time
The headers since then, if no --bitcoind brings them:
  for h in $(seq $((height + 1)) $(bitcoin-cli getblockcount)); do
    header=$(bitcoin-cli getblockheader $(bitcoin-cli getblockhash $h) false)
    blocktorrent cli submitheader $header
  done

Signals: SIGINT and SIGTERM stop the node in order, and at once if another comes a second or more later. SIGHUP \
is ignored: the log goes to stderr, and there is no file of it to open again.

Exit status: 0 after a clean stop, 1 if the node can't start, fails, or is stopped at once, 2 if a flag, its \
value or the configuration file makes no sense.";

/// Below the flags of `cli`.
pub const CLI_HELP: &str = "\
Arguments are strings or JSON (numbers, true, false, null, lists, objects), as the method wants them.

Examples:
  blocktorrent cli help
  blocktorrent cli getpeerinfo
  blocktorrent cli --network regtest getblock HASH 0
  blocktorrent cli submitblock - < block.hex

Exit status, as bitcoin-cli: 0 with an answer; if the node refuses, the error's number without its sign, modulo \
256, and stderr begins with `error code:`; 1 if no node can be reached or the answer can't be written, and stderr \
begins with `error:`; 2 for a command line that makes no sense.";

/// Below the flags of `demo`.
pub const DEMO_HELP: &str = "\
Starts the nodes on loopback with ports that the system picks, hands the block to the first one, and \
ends with a table. Loss (UDP, QUIC's too), one-way delay and rate (UDP and TCP) are emulated at the sockets. Times count \
from the moment when the first node is handed the block.

Unless told otherwise the links are modest (10 ms, 20 Mbit/s), so that one sees nodes fill; --delay 0 --rate 0 leaves \
them as they are.

Exit status: 0 only if every honest node holds the identical block; 1 if not, or if it can't run; 2 for a command \
line that makes no sense; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.";
