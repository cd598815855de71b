//! Threads that answer from index and mempool, a slice of a question at a time: who asks for much gets behind the others.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::SharedData;
use crate::electrum::query::{Query, Refusal, Told};
use crate::electrum::store::answer::{Data, Work};

/// Questions that wait. Reason: each takes some hundred bytes and most some microseconds; of heavy ones, each with its history in memory,
/// sessions and costs allow few.
const MAX_WAITING: usize = 8_192;

/// Threads at least, so that the disk never waits for one question.
const LEAST_THREADS: usize = 2;

/// A question on its way.
#[derive(Debug)]
struct Job {
    /// Not begun, or at work.
    stage: Stage,
    reply: oneshot::Sender<Told>,
}

#[derive(Debug)]
enum Stage {
    New(Query),
    Begun(Work),
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if queue.is_closed {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            let woken = self.filled.wait(queue);
            queue = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The threads. They end when this is dropped.
#[derive(Debug)]
pub struct Pool(Arc<Shared>);

impl Pool {
    /// As many as there are cores.
    ///
    /// # Errors
    ///
    /// If the system gives no threads.
    pub fn start(data: SharedData) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let cores = std::thread::available_parallelism().map_or(LEAST_THREADS, usize::from);
        for _ in 0..cores.max(LEAST_THREADS) {
            let (shared, data) = (Arc::clone(&shared), Arc::clone(&data));
            let thread = std::thread::Builder::new().name("electrum".to_owned());
            thread.spawn(move || work(&shared, &data))?;
        }
        Ok(Self(shared))
    }

    /// Puts a question; a full queue is said to the one who asked.
    pub fn ask(&self, query: Query, reply: oneshot::Sender<Told>) {
        let mut queue = self.0.lock();
        if queue.jobs.len() >= MAX_WAITING {
            drop(queue);
            tell(reply, Err(Refusal::Busy), 0);
            return;
        }
        let stage = Stage::New(query);
        queue.jobs.push_back(Job { stage, reply });
        drop(queue);
        self.0.filled.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.is_closed = true;
        queue.jobs.clear();
        drop(queue);
        self.0.filled.notify_all();
    }
}

/// The one who asked may have gone.
fn tell(
    reply: oneshot::Sender<Told>,
    answer: Result<crate::electrum::query::Answer, Refusal>,
    looked_at: u32,
) {
    reply.send(Told { answer, looked_at }).ok();
}

fn work(shared: &Shared, data: &SharedData) {
    while let Some(Job { stage, reply }) = shared.next() {
        if reply.is_closed() {
            continue;
        }
        let Some(data) = data.get() else {
            let what = "the index is being built".to_owned();
            tell(reply, Err(Refusal::Unavailable(what)), 0);
            continue;
        };
        let mut begun = begin(data, stage);
        match data.run(&mut begun) {
            Some(answer) => tell(reply, answer, begun.looked_at()),
            None => {
                // It was let in once; the queue may be one longer for it.
                let stage = Stage::Begun(begun);
                shared.lock().jobs.push_back(Job { stage, reply });
                shared.filled.notify_one();
            }
        }
    }
}

fn begin(data: &Data, stage: Stage) -> Work {
    match stage {
        Stage::New(query) => data.begin(query),
        Stage::Begun(work) => work,
    }
}
