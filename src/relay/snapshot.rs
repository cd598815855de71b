//! The engine's state as plain data, for RPC and for people.

use bytes::Bytes;

use super::Engine;
use super::event::{EngineTotals, JobSnapshot, MempoolSnapshot, PeerSnapshot, Source};
use super::jobs::JobEntry;
use super::session::{Phase, Session};
use crate::merkle::Hash;
use crate::time::Time;

impl Engine {
    /// The sessions, in order of their slots.
    pub fn peers(&self, now: Time) -> Vec<PeerSnapshot> {
        let sessions = self.sessions.iter().flatten();
        sessions
            .map(|session| peer_snapshot(session, now))
            .collect()
    }

    /// The jobs, oldest first.
    pub fn jobs(&self) -> Vec<JobSnapshot> {
        let mut jobs: Vec<JobSnapshot> = self
            .jobs
            .values()
            .map(|entry| job_snapshot(entry))
            .collect();
        jobs.sort_by_key(|job| job.opened);
        jobs
    }

    /// The counters.
    pub fn totals(&self) -> EngineTotals {
        EngineTotals {
            refused: self.refused.occurred().collect(),
            ..self.totals.clone()
        }
    }

    /// The transaction cache.
    pub fn mempool(&self) -> MempoolSnapshot {
        MempoolSnapshot {
            transactions: self.mempool.len(),
            bytes: self.mempool.bytes(),
            max_bytes: self.config.max_mempool_bytes,
        }
    }

    /// A block that is whole here and still kept by the engine, serialized.
    pub fn block(&self, hash: &Hash) -> Option<Bytes> {
        let id = self.jobs_by_hash.get(hash)?;
        self.jobs.get(id)?.job.block.clone()
    }
}

fn peer_snapshot(session: &Session, now: Time) -> PeerSnapshot {
    let round_trip = session.sent.rtt();
    let _ = now;
    PeerSnapshot {
        session: session.id,
        address: session.remote,
        initiator: session.initiator,
        established: session.phase == Phase::Established,
        udp: session.path.proven,
        probing: session.path.proven && !session.probes.is_done(),
        agent: session.agent.clone(),
        connected: session.connected,
        bytes_in: session.bytes_in,
        bytes_out: session.bytes_out,
        datagrams_in: session.datagrams_in,
        datagrams_out: session.datagrams_out,
        datagrams_lost: session.datagrams_lost,
        round_trip: round_trip.is_measured().then(|| round_trip.smoothed()),
        rate_bytes_per_s: session.pacer.rate_bytes_per_s(),
        max_datagram: session.max_datagram,
        push_level: session.push_level(),
        role: session.params.role,
        preference: session.params.preference,
        eager: session.eager,
        score: session.score,
    }
}

fn job_snapshot(entry: &JobEntry) -> JobSnapshot {
    let job = &entry.job;
    let mut sources: std::collections::BTreeMap<Source, u32> = std::collections::BTreeMap::new();
    for chunk in job.chunks.iter().filter(|chunk| chunk.done) {
        if let Some(source) = chunk.completed_by {
            *sources.entry(source).or_default() += 1;
        }
    }
    JobSnapshot {
        block: job.hash,
        height: job.height,
        transactions: job.geometry.count(),
        verified_transactions: job.verified_leaves,
        chunks: job.chunks.len() as u32,
        verified_chunks: job.verified_chunks,
        chunks_forwarded_before_complete: job.chunks.iter().filter(|chunk| chunk.forwarded).count()
            as u32,
        complete: job.is_complete(),
        opened: job.opened,
        first_chunk: job.first_chunk,
        completed: job.completed,
        bytes: job.block_bytes,
        requests: entry.requests_sent,
        sources: sources.into_iter().collect(),
    }
}
