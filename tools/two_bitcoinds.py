#!/usr/bin/env python3
"""Two bitcoinds that do not know each other, and two Blocktorrent nodes between them, on loopback.

    bitcoind A <-> blocktorrent A <-> blocktorrent B <-> bitcoind B

A mines blocks full of transactions; for each the time from A's acceptance to B's is printed. The exit code
is 0 only if B has accepted every block. With --direct the bitcoinds are connected to each other instead,
for comparison. Everything is regtest, below a temporary folder, with ports that the system picks.

Needs Python 3.9, bitcoind (BITCOIND_EXE, or on PATH) and blocktorrent (target/release, or --blocktorrent).
"""

import argparse
import base64
import hashlib
import http.client
import json
import os
import random
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

START_TIME = 60
"""Seconds that a program may take to start."""
BLOCK_TIME = 60
"""Seconds that a block may take."""
MATURITY = 100
"""Blocks before a coinbase can be spent."""
FAN_OUT = 2_000
"""Outputs of one transaction that makes coins small."""
LEAST_COIN = 60_000
"""Satoshis of a coin that is spent once more: enough for the fee and 21 outputs above the dust limit."""
SCRIPT = b"\x51"
"""OP_TRUE: anybody can spend, so that no keys are needed."""
PROGRAM = b"\x00\x20" + hashlib.sha256(SCRIPT).digest()
"""The same behind a witness program, so that transactions have witnesses."""


def free_ports(count):
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def compact_size(value):
    if value < 0xFD:
        return struct.pack("<B", value)
    if value <= 0xFFFF:
        return b"\xfd" + struct.pack("<H", value)
    return b"\xfe" + struct.pack("<I", value)


def double_sha256(data):
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def transaction(coins, outputs):
    """Spends `coins` [(txid, index)] of PROGRAM; gives the serialization and the txid."""
    head = struct.pack("<i", 2)
    body = compact_size(len(coins))
    for txid, index in coins:
        body += txid + struct.pack("<I", index) + b"\x00" + b"\xfd\xff\xff\xff"
    body += compact_size(len(outputs))
    for value, script in outputs:
        body += struct.pack("<q", value) + compact_size(len(script)) + script
    tail = struct.pack("<I", 0)
    witness = (b"\x01" + compact_size(len(SCRIPT)) + SCRIPT) * len(coins)
    return head + b"\x00\x01" + body + witness + tail, double_sha256(head + body + tail)


class RpcError(Exception):
    pass


class Bitcoind:
    """One bitcoind of regtest."""

    def __init__(self, executable, folder, name):
        self.name = name
        self.folder = os.path.join(folder, name)
        os.makedirs(self.folder)
        self.executable = executable
        self.rpc_port, self.p2p_port, self.zmq_port = free_ports(3)
        self.local = threading.local()
        self.process = None
        self.start()

    def start(self):
        zmq = f"tcp://127.0.0.1:{self.zmq_port}"
        topics = ("rawblock", "hashblock", "rawtx", "sequence")
        self.process = subprocess.Popen(
            [
                self.executable, "-regtest", f"-datadir={self.folder}", "-printtoconsole=0",
                f"-rpcport={self.rpc_port}", f"-bind=127.0.0.1:{self.p2p_port}", "-dnsseed=0", "-fixedseeds=0",
                "-minrelaytxfee=0", "-blockmintxfee=0", "-maxmempool=600", "-limitancestorcount=1000",
                "-whitelist=noban@127.0.0.1",
                # On regtest it looks at the whole mempool after every transaction.
                "-checkmempool=0", "-checkblockindex=0", *[f"-zmqpub{topic}={zmq}" for topic in topics],
            ],
            stdout=subprocess.DEVNULL,
        )
        self.local = threading.local()
        deadline = time.monotonic() + START_TIME
        while True:
            try:
                self.call("getblockcount")
                return
            except (OSError, RpcError, http.client.HTTPException):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"bitcoind {self.name} does not start; see {self.folder}") from None
                time.sleep(0.05)

    @property
    def cookie(self):
        return os.path.join(self.folder, "regtest", ".cookie")

    def call(self, method, *parameters, timeout=BLOCK_TIME + 30):
        """Calls a method, on a connection that the thread keeps."""
        with open(self.cookie, encoding="ascii") as file:
            login = base64.b64encode(file.read().encode()).decode()
        body = json.dumps({"id": 0, "method": method, "params": parameters})
        connection = getattr(self.local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.rpc_port, timeout=timeout)
            self.local.connection = connection
        try:
            connection.request("POST", "/", body, {"Authorization": f"Basic {login}"})
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            self.local.connection = None
            raise
        if answer.get("error"):
            raise RpcError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


class Relay:
    """One Blocktorrent node beside a bitcoind."""

    def __init__(self, executable, folder, name, bitcoind, ways, connect=None):
        self.folder = os.path.join(folder, name)
        os.makedirs(self.folder)
        spec = [
            f"rpc=127.0.0.1:{bitcoind.rpc_port},cookie={bitcoind.cookie}" if "rpc" in ways else "rpc=off",
            f"p2p=127.0.0.1:{bitcoind.p2p_port}" if "p2p" in ways else "p2p=off",
            f"zmq=tcp://127.0.0.1:{bitcoind.zmq_port}" if "zmq" in ways else "zmq=off",
        ]
        any_port = "127.0.0.1:0"
        arguments = [
            executable, "node", "--network", "regtest", "--datadir", self.folder, "--control-listen", any_port,
            "--data-listen", any_port, "--rpc-listen", any_port, "--p2p-listen", any_port,
            "--find-peers", "off", "--bitcoind", ",".join(spec),
        ]
        if connect:
            arguments += ["--connect", connect]
        self.log = os.path.join(self.folder, "log")
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log)
        place = os.path.join(self.folder, "regtest", "node.json")
        deadline = time.monotonic() + START_TIME
        while not os.path.exists(place):
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(self.log, encoding="utf-8") as log:
                    raise SystemExit(f"{name} does not start:\n{log.read()}")
            time.sleep(0.02)
        with open(place, encoding="utf-8") as file:
            self.control = json.load(file)["control"]

    def cli(self, executable, *arguments):
        answer = subprocess.run(
            [executable, "cli", "--network", "regtest", "--datadir", self.folder, *arguments],
            check=True, capture_output=True, text=True,
        )
        return json.loads(answer.stdout)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


class Tip(threading.Thread):
    """Notes when a bitcoind accepts which block, by its own word."""

    def __init__(self, bitcoind):
        super().__init__(daemon=True)
        self.bitcoind = bitcoind
        self.times = {}
        self.changed = threading.Condition()
        self.start()

    def run(self):
        best = self.bitcoind.call("getbestblockhash")
        while True:
            try:
                tip = self.bitcoind.call("waitfornewblock", 20_000, best)["hash"]
            except (OSError, RpcError, http.client.HTTPException, ValueError):
                return
            if tip != best:
                best = tip
                with self.changed:
                    self.times[tip] = time.monotonic()
                    self.changed.notify_all()

    def wait(self, block):
        with self.changed:
            self.changed.wait_for(lambda: block in self.times, BLOCK_TIME)
            return self.times.get(block)


class Miner:
    """Mines at A, and fills its mempool before."""

    def __init__(self, bitcoind, seed):
        self.bitcoind = bitcoind
        self.random = random.Random(seed)
        self.coins = []
        self.coinbases = []

    def mine(self):
        block = self.bitcoind.call("generatetodescriptor", 1, f"raw({PROGRAM.hex()})")[0]
        coinbase = self.bitcoind.call("getblock", block, 2)["tx"][0]
        value = round(coinbase["vout"][0]["value"] * 100_000_000)
        self.coinbases.append((bytes.fromhex(coinbase["txid"])[::-1], value))
        return block

    def prepare(self, count):
        """Makes at least `count` coins that can be spent."""
        for _ in range(MATURITY + -(-count // FAN_OUT) + 1):
            self.mine()
        while len(self.coins) < count:
            txid, value = self.coinbases.pop(0)
            each = value // FAN_OUT - 100
            raw, made = transaction([(txid, 0)], [(each, PROGRAM)] * FAN_OUT)
            self.bitcoind.call("sendrawtransaction", raw.hex(), 0)
            self.coins += [(made, index, each) for index in range(FAN_OUT)]
            self.mine()

    def fill(self, count):
        """Puts transactions into the mempool: mostly one or two inputs and two outputs, some with many."""
        for _ in range(count):
            inputs = [self.coins.pop(0) for _ in range(self.random.choice((1, 1, 1, 2)))]
            others = self.random.choice((1, 1, 1, 1, 2, 5, 20))
            value = sum(coin[2] for coin in inputs) - 1_000 * (others + 1)
            share = value // (others + 1)
            outputs = [(share, b"\x00\x14" + self.random.randbytes(20)) for _ in range(others)]
            outputs.append((share, PROGRAM))
            raw, txid = transaction([coin[:2] for coin in inputs], outputs)
            self.bitcoind.call("sendrawtransaction", raw.hex(), 0)
            if share > LEAST_COIN:
                self.coins.append((txid, others, share))


def settled(relay_a, relay_b, executable, count, wait):
    """Waits until both caches hold what the mempool holds, or `wait` seconds."""
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        sizes = [relay.cli(executable, "getmempoolinfo")["size"] for relay in (relay_a, relay_b)]
        if min(sizes) >= count:
            return
        time.sleep(0.1)


def default_relay():
    """The relay on PATH, or the one that was built here."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return shutil.which("blocktorrent") or os.path.join(here, "target", "release", "blocktorrent")


def check(options, needs_relay=True):
    """Ends the program, with advice, if it lacks one of the others."""
    if not options.bitcoind or not os.path.exists(options.bitcoind):
        raise SystemExit("no bitcoind: set BITCOIND_EXE, put it on PATH, or give --bitcoind")
    if needs_relay and not os.path.exists(options.blocktorrent):
        raise SystemExit(f"no {options.blocktorrent}: run `cargo build --release`, or give --blocktorrent")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=10, metavar="N", help="blocks to mine [10]")
    parser.add_argument("--transactions", type=int, default=500, metavar="N", help="in each block [500]")
    parser.add_argument("--reorganise", type=int, default=0, metavar="N", help="then undo N blocks at A for N + 1 others")
    parser.add_argument("--warm", action="store_true", help="give B's bitcoind the transactions too")
    parser.add_argument("--ways", default="p2p,zmq,rpc", help="how the relays reach the bitcoinds [p2p,zmq,rpc]")
    parser.add_argument("--direct", action="store_true", help="connect the bitcoinds to each other, without relays")
    parser.add_argument("--bitcoind", default=os.environ.get("BITCOIND_EXE") or shutil.which("bitcoind"))
    parser.add_argument("--blocktorrent", default=default_relay())
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one object at the end")
    parser.add_argument("--keep", action="store_true", help="keep the folder, and say where it is")
    return parser.parse_args()


def reorganise(options, a, tips):
    """Undoes blocks at A, mines one more than these, and waits until B has followed."""
    depth = options.reorganise
    undone = a.call("getblockhash", a.call("getblockcount") - depth + 1)
    a.call("invalidateblock", undone)
    # Coinbases that pay to somebody else, so that they are other blocks.
    block = a.call("generatetodescriptor", depth + 1, "raw(52)")[-1]
    at_a, at_b = tips[0].wait(block), tips[1].wait(block)
    shown = "NOT FOLLOWED" if None in (at_a, at_b) else f"{(at_b - at_a) * 1e3:.1f} ms from A's acceptance to B's"
    if not options.json:
        print(f"reorganisation of {depth} blocks: {shown}")
    return None not in (at_a, at_b)


def run(options, folder, running):
    a = Bitcoind(options.bitcoind, folder, "bitcoind-a")
    running.append(a)
    b = Bitcoind(options.bitcoind, folder, "bitcoind-b")
    running.append(b)
    ways = options.ways.split(",")
    relays = []
    if options.direct:
        b.call("addnode", f"127.0.0.1:{a.p2p_port}", "onetry")
    else:
        first = Relay(options.blocktorrent, folder, "relay-a", a, ways)
        running.append(first)
        second = Relay(options.blocktorrent, folder, "relay-b", b, ways, connect=first.control)
        running.append(second)
        relays = [first, second]
    tips = [Tip(a), Tip(b)]
    miner = Miner(a, options.seed)
    print("preparing coins: this takes some seconds for a thousand transactions a block", file=sys.stderr)
    miner.prepare(options.blocks * options.transactions * 5 // 4 + FAN_OUT)
    if tips[1].wait(a.call("getbestblockhash")) is None:
        raise SystemExit("B does not follow A while coins are prepared")
    print(f"coins are ready; {options.blocks} blocks follow", file=sys.stderr)
    results = []
    for number in range(options.blocks):
        miner.fill(options.transactions)
        if options.warm:
            for txid, raw in ((txid, a.call("getrawtransaction", txid)) for txid in a.call("getrawmempool")):
                try:
                    b.call("sendrawtransaction", raw, 0)
                except RpcError:
                    pass
        if relays and options.warm:
            settled(*relays, options.blocktorrent, options.transactions, 10)
        block = miner.mine()
        at_a, at_b = tips[0].wait(block), tips[1].wait(block)
        taken = None if None in (at_a, at_b) else (at_b - at_a) * 1e3
        size = a.call("getblock", block)
        results.append({"height": size["height"], "hash": block, "bytes": size["size"],
                        "transactions": size["nTx"], "ms": taken})
        if not options.json:
            shown = "NOT ACCEPTED" if taken is None else f"{taken:7.1f} ms"
            print(f"{size['height']:6} {block[:16]} {size['size']:9} bytes {size['nTx']:5} tx  {shown}", flush=True)
        if taken is None:
            break
    times = [result["ms"] for result in results if result["ms"] is not None]
    good = len(times) == options.blocks
    if good and options.reorganise:
        good = reorganise(options, a, tips)
    if options.json:
        print(json.dumps({"good": good, "median_ms": statistics.median(times) if times else None, "blocks": results}))
    elif times:
        print(f"{len(times)} of {options.blocks} blocks; from A's acceptance to B's:"
              f" median {statistics.median(times):.1f} ms, most {max(times):.1f} ms")
        if min(times) < 0:
            print("a negative time: B told of the block before A did. A hands a block on before it has told that it is its"
                  " best one, and both are asked by calls that take some milliseconds themselves.")
    return 0 if good else 1


def main():
    options = arguments()
    check(options, needs_relay=not options.direct)
    folder = tempfile.mkdtemp(prefix="two-bitcoinds-")
    running = []
    try:
        return run(options, folder, running)
    finally:
        for each in reversed(running):
            each.stop()
        if options.keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
