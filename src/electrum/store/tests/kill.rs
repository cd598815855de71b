//! The process is killed at random moments, and the index is what it would be without that.
//!
//! `BLOCKTORRENT_KILLS=200 cargo test --lib a_killed_process` kills as often.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

/// What the child is told by.
const FOLDER: &str = "BLOCKTORRENT_KILL_FOLDER";

/// The child: follows the tips that a file lists, again and again, until it is killed.
#[test]
#[ignore = "it is started by `a_killed_process_leaves_an_index_of_whole_blocks`"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let files = Arc::new(BlockFiles::open(&folder.join("blocks"), Network::Regtest).unwrap());
    let tips = std::fs::read(folder.join("tips")).unwrap();
    let mut follower = follower(folder, files);
    println!("begins");
    loop {
        for tip in tips.as_chunks::<32>().0 {
            follower.follow(*tip, &|_| (), |_| ()).unwrap();
        }
    }
}

fn follower(folder: &Path, files: Arc<BlockFiles>) -> Follower {
    let writer = Store::open(&folder.join("index"), Network::Regtest, 8 << 20).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    Follower::new(writer, files, folder.join("buckets"), 1 << 30, stop)
}

/// Starts the child and kills it `delay` after it has begun.
fn run_and_kill(folder: &Path, delay: Duration) {
    use std::io::BufRead as _;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "electrum::store::tests::kill::child",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let begun = lines
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.ends_with("begins"));
    assert!(begun, "the child did not begin");
    std::thread::sleep(delay);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_killed_process_leaves_an_index_of_whole_blocks() {
    let kills: u32 = std::env::var("BLOCKTORRENT_KILLS").map_or(8, |kills| kills.parse().unwrap());
    let mut world = World::new(11);
    world.most = 6;
    let mut tip = 0;
    for _ in 0..UNDO_BLOCKS + 20 {
        tip = world.grow(tip);
    }
    let branch = world.branch(tip);
    let mut other = branch[branch.len() - 4];
    for _ in 0..6 {
        other = world.grow(other);
    }
    world.write(9);
    // What the index is to be at each block that it may stop at.
    let mut expected = HashMap::new();
    let mut whole = Indexed::new(&world);
    for end in [tip, other] {
        for index in world.branch(end).split_off(20) {
            whole.follow(&world, index).unwrap();
            let rows = whole.rows();
            let before = expected.insert(hash_of(&world.blocks[index].0), rows.clone());
            assert!(
                before.is_none_or(|before| before == rows),
                "the same block, other rows"
            );
        }
    }
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(world.folder.path(), folder.path().join("blocks")).unwrap();
    let tips = [tip, other].map(|index| hash_of(&world.blocks[index].0));
    std::fs::write(folder.path().join("tips"), tips.as_flattened()).unwrap();
    let mut rng = StdRng::seed_from_u64(12);
    let mut at_blocks = std::collections::BTreeSet::new();
    for kill in 0..kills {
        if kill % 8 == 0 {
            // The first build is to be killed, too.
            let _ = std::fs::remove_dir_all(folder.path().join("index"));
        }
        let delay = Duration::from_micros(rng.random_range(0..400_000));
        run_and_kill(folder.path(), delay);
        let follower = follower(folder.path(), world.files());
        let indexed = Indexed {
            folder: tempfile::tempdir().unwrap(),
            follower,
        };
        let Some((height, hash)) = indexed.follower.store().view().chain.tip() else {
            continue;
        };
        at_blocks.insert(height);
        let rows = expected.get(&hash).expect("a block that was followed");
        let found = indexed.rows();
        let other = found.iter().zip(rows).find(|(one, other)| one != other);
        assert!(
            found == *rows,
            "kill {kill} after {delay:?}, block {height}: {} rows for {}, {other:?}",
            found.len(),
            rows.len()
        );
    }
    println!("{kills} kills, at blocks {at_blocks:?}");
}
