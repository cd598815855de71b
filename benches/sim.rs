//! How fast the simulator is: happenings a second, on one core.
//!
//! `cargo bench --bench sim`. A happening is a datagram or segment that arrives, an engine that is woken, or the like;
//! the engines' own work is in it, and is most of it. `hop` is the smallest world, `swarm` has a hundred nodes with
//! eight links each, `warm` is a swarm whose nodes have the transactions already; the last two are rivals in `swarm`.

use blocktorrent::sim::protocol::{Blocktorrent, Protocol};
use blocktorrent::sim::rivals::{BIP152_HIGH_BANDWIDTH, FIBRE_TRUSTED};
use blocktorrent::sim::{Outcome, Scenario, Trial};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const HOP: &str = "[link]\nloss = 0.01";
const SWARM: &str = "
    [topology]
    kind = 'regular'
    nodes = 100
    degree = 8
    [link]
    rate_mbit = 0
    [access]
    up_mbit = 50
    down_mbit = 200
    [block]
    bytes = 500000
";

fn trial(text: &str) -> Trial {
    let scenario = Scenario::from_toml("bench", text).expect("a scenario");
    Trial::new(&scenario, 1, None).expect("a trial")
}

fn run(protocol: &dyn Protocol, trial: &Trial) -> Outcome {
    let outcome = protocol.run(trial, &mut |_| {});
    assert!(outcome.is_complete());
    outcome
}

fn worlds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sim");
    group.sample_size(10);
    let warm = format!("{SWARM}\n[mempool]\noverlap = 1");
    for (name, text) in [("hop", HOP), ("swarm", SWARM), ("warm", &warm)] {
        let trial = trial(text);
        group.throughput(Throughput::Elements(run(&Blocktorrent, &trial).happenings));
        group.bench_function(name, |bencher| bencher.iter(|| run(&Blocktorrent, &trial)));
    }
    let rivals: [&dyn Protocol; 2] = [&BIP152_HIGH_BANDWIDTH, &FIBRE_TRUSTED];
    let trial = trial(SWARM);
    for rival in rivals {
        let name = format!("swarm-{}", rival.name());
        group.throughput(Throughput::Elements(run(rival, &trial).happenings));
        group.bench_function(name, |bencher| bencher.iter(|| run(rival, &trial)));
    }
    group.finish();
}

criterion_group!(benches, worlds);
criterion_main!(benches);
