#!/usr/bin/env python3
"""What a Blocktorrent node costs beside bitcoind: memory for its mempool, processor time for a block and for idling.

    bitcoind A <-> blocktorrent A <-> blocktorrent B <-> bitcoind B

A's mempool is filled; then both relays hold its transactions (B's is given them too, as in steady state), blocks are
mined, and what the system counts of each relay's process is printed. Linux only: it reads /proc.

Needs what two_bitcoinds.py needs.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time

import two_bitcoinds
from two_bitcoinds import Bitcoind, Miner, Relay, Tip, settled

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
"""Unit of processor time in /proc."""
WAYS = ("p2p", "zmq", "rpc")


def resident_mb(relay):
    """Resident memory of a relay's process, and the most that it ever was."""
    with open(f"/proc/{relay.process.pid}/status", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    return [int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")]


def processor_ms(relay):
    """Processor time that a relay's process has used, user and system."""
    with open(f"/proc/{relay.process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / TICKS_PER_S


def copy_mempool(source, target, known):
    """Gives `target` the transactions of `source` that it lacks, parents first."""
    entries = source.call("getrawmempool", True)
    fresh = sorted((item for item in entries.items() if item[0] not in known), key=lambda item: item[1]["ancestorcount"])
    for txid, _ in fresh:
        target.call("sendrawtransaction", source.call("getrawtransaction", txid), 0)
        known.add(txid)


def memory(options, folder, running):
    """Memory of a relay beside a bitcoind whose mempool has many transactions."""
    node = Bitcoind(options.bitcoind, folder, "bitcoind")
    running.append(node)
    miner = Miner(node, options.seed)
    print("preparing coins", file=sys.stderr)
    miner.prepare(options.mempool * 5 // 4 + two_bitcoinds.FAN_OUT)
    print(f"filling the mempool with {options.mempool} transactions", file=sys.stderr)
    miner.fill(options.mempool)
    info = node.call("getmempoolinfo")
    relay = Relay(options.blocktorrent, folder, "relay", node, WAYS)
    running.append(relay)
    start = time.monotonic()
    held = 0
    while held < info["size"]:
        if time.monotonic() - start > 600:
            raise SystemExit(f"the relay holds {held} of {info['size']} transactions after ten minutes")
        time.sleep(0.5)
        held = relay.cli(options.blocktorrent, "getmempoolinfo")["size"]
    taken = time.monotonic() - start
    cache = relay.cli(options.blocktorrent, "getmempoolinfo")
    resident, most = resident_mb(relay)
    return {
        "transactions": cache["size"], "transaction_mb": cache["bytes"] / 2**20, "seconds_to_load": taken,
        "resident_mb": resident, "most_resident_mb": most, "processor_ms_to_load": processor_ms(relay),
        "bitcoind_usage_mb": info["usage"] / 2**20,
    }


def blocks(options, folder, running):
    """Processor time of two relays for blocks whose transactions both have, and while nothing happens."""
    a, b = (Bitcoind(options.bitcoind, folder, name) for name in ("bitcoind-a", "bitcoind-b"))
    running += [a, b]
    first = Relay(options.blocktorrent, folder, "relay-a", a, WAYS)
    running.append(first)
    second = Relay(options.blocktorrent, folder, "relay-b", b, WAYS, connect=first.control)
    running.append(second)
    relays, tips = (first, second), [Tip(a), Tip(b)]
    miner = Miner(a, options.seed)
    miner.prepare(options.blocks * options.transactions * 5 // 4 + two_bitcoinds.FAN_OUT)
    if tips[1].wait(a.call("getbestblockhash")) is None:
        raise SystemExit("B does not follow A while coins are prepared")
    used, known = ([], []), set()
    for _ in range(options.blocks):
        miner.fill(options.transactions)
        copy_mempool(a, b, known)
        settled(*relays, options.blocktorrent, options.transactions, 30)
        time.sleep(1)
        before = [processor_ms(relay) for relay in relays]
        block = miner.mine()
        if tips[1].wait(block) is None:
            raise SystemExit("B does not accept a block")
        # What follows a block (disk, announcements) is over soon.
        time.sleep(1)
        for times, relay, start in zip(used, relays, before):
            times.append(processor_ms(relay) - start)
    before = [processor_ms(relay) for relay in relays]
    time.sleep(options.idle)
    idle = [(processor_ms(relay) - start) / options.idle for relay, start in zip(relays, before)]
    size = a.call("getblock", a.call("getbestblockhash"))["size"]
    return {
        "blocks": options.blocks, "transactions": options.transactions, "bytes_of_last": size,
        "processor_ms_per_block": {name: sum(times) / len(times) for name, times in zip(("sender", "receiver"), used)},
        "processor_ms_per_idle_second": dict(zip(("sender", "receiver"), idle)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mempool", type=int, default=300_000, metavar="N", help="transactions held [300000]; 0: skip")
    parser.add_argument("--blocks", type=int, default=20, metavar="N", help="blocks mined [20]; 0: skip")
    parser.add_argument("--transactions", type=int, default=2_000, metavar="N", help="in each block [2000]")
    parser.add_argument("--idle", type=int, default=20, metavar="S", help="seconds of idling [20]")
    parser.add_argument("--bitcoind", default=os.environ.get("BITCOIND_EXE") or shutil.which("bitcoind"))
    parser.add_argument("--blocktorrent", default=two_bitcoinds.default_relay())
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    two_bitcoinds.check(options)
    for count, measure in ((options.mempool, memory), (options.blocks, blocks)):
        if count == 0:
            continue
        folder = tempfile.mkdtemp(prefix="costs-")
        running = []
        try:
            print(json.dumps({measure.__name__: measure(options, folder, running)}, indent=1), flush=True)
        finally:
            for each in reversed(running):
                each.stop()
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
