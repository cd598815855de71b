//! Decoded structures and messages as the fields of a vector.

use super::json::hex;
use blocktorrent::merkle::Direction;
use blocktorrent::wire::{
    HashEntry, HashSequence, HashlessWorkout, JobRef, Kind, Message, MissingReason, ParameterList,
    Shape, Tree, Whose, WireLap, WireRun,
};
use serde_json::{Value, json};

fn wide(value: u64) -> Value {
    json!(format!("{value:#x}"))
}

pub fn job(job: JobRef) -> Value {
    let whose = if job.whose == Whose::Sender {
        "sender"
    } else {
        "receiver"
    };
    json!({ "id": job.id, "whose": whose })
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Flat => "flat",
        Direction::Down => "down",
        Direction::Up => "up",
    }
}

/// Every hash as the bytes that stand on the wire: 4 to 8 of a short id, or 32.
pub fn sequence(sequence: &HashSequence<'_>) -> Value {
    let hashes = sequence.iter().map(|entry| match entry {
        HashEntry::Full(hash) => hex(hash),
        HashEntry::Short(id, size) => hex(id.to_le_bytes().get(..size.into()).expect("at most 8")),
    });
    json!({ "default_size": sequence.default_size(), "hashes": hashes.collect::<Vec<_>>() })
}

pub fn run(run: &WireRun<'_>) -> Value {
    json!({
        "direction": direction(run.direction),
        "level": run.level,
        "start": run.start,
        "sequence": sequence(&run.hashes),
    })
}

pub fn lap(lap: &WireLap<'_>) -> Value {
    let runs: Vec<_> = lap.runs.iter().map(|one| run(&one)).collect();
    json!({ "level": lap.level, "index": lap.index, "runs": runs })
}

fn hashless_runs(workout: &HashlessWorkout<'_>) -> Value {
    let runs = workout.iter().map(|run| match run.shape {
        Shape::Run(way) => json!({
            "direction": direction(way), "level": run.level, "start": run.start, "count": run.count,
        }),
        Shape::Bitmap(bits) => json!({
            "direction": "bitmap", "level": run.level, "start": run.start, "count": run.count,
            "bitmap": hex(bits),
        }),
    });
    runs.collect()
}

pub fn hashless(workout: &HashlessWorkout<'_>) -> Value {
    json!({ "runs": hashless_runs(workout) })
}

fn tree(tree: Tree) -> &'static str {
    if tree == Tree::Txid { "T" } else { "W" }
}

fn kind(kind: Kind) -> u8 {
    kind.to_wire()
}

fn parameters(list: &ParameterList<'_>) -> Value {
    list.iter()
        .map(|pair| json!({ "key": pair.key, "value": wide(pair.value) }))
        .collect()
}

pub fn message(message: &Message<'_>) -> Value {
    match message {
        Message::Version(one) => json!({
            "network": one.network, "version_min": one.version_min, "version_max": one.version_max,
            "features": wide(one.features), "nonce": wide(one.nonce), "conn_id": one.conn_id,
            "mac_key": hex(one.mac_key), "udp_port": one.udp_port, "max_datagram": one.max_datagram,
            "tip": hex(one.tip), "parameters": parameters(&one.parameters), "agent": one.agent,
        }),
        Message::VersionAck(one) => {
            json!({ "version": one.version, "features": wide(one.features) })
        }
        Message::GetAddr => json!({}),
        Message::Addr(list) => {
            let addresses = list.iter().map(|one| {
                json!({
                    "network": one.address.network(), "address": hex(one.address.as_bytes()),
                    "tcp_port": one.tcp_port, "udp_port": one.udp_port,
                    "services": wide(one.services), "last_seen": one.last_seen,
                })
            });
            json!({ "addresses": addresses.collect::<Vec<_>>() })
        }
        Message::Disconnect(one) => json!({ "reason": one.reason.to_wire(), "text": one.text }),
        Message::SetParams(list) => json!({ "parameters": parameters(list) }),
        Message::TestMtu(one) => {
            json!({ "nonce": wide(one.nonce), "size": one.size, "count": one.count })
        }
        Message::EstimateBandwidth(one) => json!({
            "nonce": wide(one.nonce), "size": one.size, "count": one.count, "gap_us": one.gap_us,
        }),
        Message::ProbeReport(one) => json!({
            "nonce": wide(one.nonce), "received": one.received, "largest": one.largest,
            "first_to_last_us": one.first_to_last_us,
        }),
        Message::OpenJob(one) => json!({
            "job": one.job, "has_commitment": one.has_commitment,
            "sender_has_all": one.sender_has_all, "count": one.count,
            "block_bytes": one.block_bytes, "nonce": wide(one.nonce), "header": hex(one.header),
        }),
        Message::CloseJob(one) => json!({ "job": job(one.job), "reason": one.reason.to_wire() }),
        other => job_message(other),
    }
}

fn job_message(message: &Message<'_>) -> Value {
    match message {
        Message::JobState(one) | Message::JobStateAck(one) => json!({
            "job": job(one.job), "kind": kind(one.kind), "runs": hashless_runs(&one.nodes),
        }),
        Message::Ping(one) => json!({ "nonce": wide(one.nonce), "padding": one.padding }),
        Message::Pong(one) => json!({ "nonce": wide(one.nonce), "bytes": one.bytes }),
        Message::GetHashes(one) => json!({
            "job": job(one.job), "tree": tree(one.tree), "short": one.short, "around": one.around,
            "runs": hashless_runs(&one.nodes),
        }),
        Message::Hashes(one) => {
            json!({ "job": job(one.job), "tree": tree(one.tree), "lap": lap(&one.lap) })
        }
        Message::GetTxs(one) => json!({ "job": job(one.job), "runs": hashless_runs(&one.nodes) }),
        Message::Txs(one) => {
            let transactions: Vec<_> = one.transactions.iter().map(hex).collect();
            json!({ "job": job(one.job), "first": one.first, "transactions": transactions })
        }
        Message::TxPart(one) => json!({
            "job": job(one.job), "index": one.index, "total": one.total, "cell": one.cell,
            "bytes": hex(one.bytes),
        }),
        Message::Parity(one) => json!({
            "job": job(one.job), "kind": one.kind.to_wire(), "bytes": one.bytes, "planned": one.planned,
            "first": one.first, "count": one.count, "cells": hex(one.cells),
        }),
        Message::Missing(one) => json!({
            "job": job(one.job), "reason": MissingReason::to_wire(one.reason),
            "request": one.request.to_wire(), "runs": hashless_runs(&one.nodes),
        }),
        Message::Cancel(one) => json!({
            "job": job(one.job), "kind": kind(one.kind), "runs": hashless_runs(&one.nodes),
        }),
        Message::RxReport(one) => {
            let words: Vec<_> = one.received().iter().map(|word| wide(*word)).collect();
            json!({ "highest": one.highest, "delay_us": one.delay_us, "received": words })
        }
        other => panic!("a control message: {other:?}"),
    }
}
