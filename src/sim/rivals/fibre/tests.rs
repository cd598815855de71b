use super::super::tests::{measured_link, spread};
use super::super::{FIBRE_TRUSTED, FIBRE_UNTRUSTED};
use super::coding::{Coding, Object};
use super::node::{Chunk, Part, Verdict};
use super::*;
use crate::sim::scenario::Scenario;
use std::sync::Arc;

fn trial(toml: &str) -> Trial {
    Trial::new(&Scenario::from_toml("t", toml).unwrap(), 3, None).unwrap()
}

/// FIBRE v30.0 as the targets have it. Within 15% or 6 ms, but for rows of four hops, where the time that FIBRE takes to
/// compute at each hop, and the chunks that it drops meanwhile, is in the figure and not in the model.
#[test]
fn figures_are_those_measured_with_fibre() {
    let rows: &[(usize, &Fibre, f64, [f64; 4], f64)] = &[
        (1, &FIBRE_TRUSTED, 0.0, [56.0, 66.0, 92.0, 251.0], 0.15),
        (1, &FIBRE_TRUSTED, 0.01, [56.0, 67.0, 93.0, 253.0], 0.15),
        (1, &FIBRE_TRUSTED, 0.05, [55.0, 66.0, 94.0, 260.0], 0.15),
        (4, &FIBRE_TRUSTED, 0.01, [214.0, 0.0, 0.0, 541.0], 0.27),
        (4, &FIBRE_UNTRUSTED, 0.01, [270.0, 0.0, 0.0, 1_026.0], 0.24),
    ];
    println!("hops  protocol  loss  overlap  measured  model");
    for (hops, protocol, loss, cells, below) in rows {
        for (overlap, measured) in [1.0, 0.99, 0.95, 0.0].into_iter().zip(cells) {
            if *measured == 0.0 {
                continue;
            }
            let [_, median, _] = spread(*protocol, &measured_link(*hops, *loss, overlap, 3), 3);
            let name = protocol.name();
            println!("{hops} {name} {loss} {overlap:>5} {measured:>7} {median:>7.0}");
            let enough = (measured * (1.0 - below)).min(measured - 6.0);
            let most = (measured * 1.15).max(measured + 6.0);
            assert!((enough..most).contains(&median), "{median} for {measured}");
        }
    }
}

#[test]
fn a_megabyte_costs_more_than_two_whatever_is_missing() {
    for overlap in [0.0, 1.0] {
        let trial = trial(&format!("[mempool]\noverlap = {overlap}"));
        let outcome = FIBRE_TRUSTED.run(&trial, &mut |_| {});
        let bytes = outcome.traffic[0].bytes_out;
        assert!((2_150_000..2_400_000).contains(&bytes), "{bytes}");
        assert!(outcome.blocks[0].nodes[1].request_free);
        assert_eq!(outcome, FIBRE_TRUSTED.run(&trial, &mut |_| {}));
    }
}

#[test]
fn any_chunks_decode_if_they_are_enough_and_different() {
    let trial = trial("[block]\nbytes = 40000\n[mempool]\noverlap = 0.5");
    let block = &trial.blocks[0];
    let coding = Arc::new(Coding::new(block, 48.0));
    let missing = coding.missing(&block.lacked[1]);
    let wanted = missing.iter().filter(|missing| **missing).count() as u32;
    assert!(wanted > 0 && wanted <= coding.body.data);
    let mut part = Part::new(Arc::clone(&coding), &block.lacked[1], 1, true);
    let chunk = |object, index| Chunk {
        block: 0,
        object,
        maker: 1,
        index,
    };
    // A body chunk before anything of the header is dropped.
    assert_eq!(part.take(0, chunk(Object::Body, 0), true), Verdict::Dropped);
    for index in 0..coding.header.data {
        assert_eq!(
            part.take(0, chunk(Object::Header, index), true),
            Verdict::Helped
        );
        let again = part.take(0, chunk(Object::Header, index), true);
        assert!(matches!(again, Verdict::Dropped | Verdict::Useless));
    }
    assert_eq!(
        part.take(0, chunk(Object::Header, 99), true),
        Verdict::Useless
    );
    for index in 0..wanted - 1 {
        assert_eq!(
            part.take(0, chunk(Object::Body, index), true),
            Verdict::Helped
        );
        assert_eq!(
            part.take(0, chunk(Object::Body, index), true),
            Verdict::Dropped
        );
    }
    // What the mempool gave is no news.
    if let Some(held) = missing.iter().position(|missing| !missing) {
        let data = Chunk {
            maker: 0,
            ..chunk(Object::Body, held as u32)
        };
        assert_eq!(part.take(0, data, true), Verdict::Dropped);
    }
    let last = chunk(Object::Body, 1_000);
    assert_eq!(part.take(0, last, true), Verdict::Completed);
}

#[test]
fn strangers_do_not_share_a_decoder() {
    let trial = trial("[block]\nbytes = 400000");
    let coding = Arc::new(Coding::new(&trial.blocks[0], 48.0));
    let chunk = |index| Chunk {
        block: 0,
        object: Object::Header,
        maker: 1,
        index,
    };
    for trusted in [true, false] {
        let mut part = Part::new(Arc::clone(&coding), &[], 2, trusted);
        let mut last = Verdict::Dropped;
        for index in 0..coding.header.data {
            last = part.take(index as usize % 2, chunk(index), false);
        }
        assert_eq!(last == Verdict::Completed, trusted);
    }
}
