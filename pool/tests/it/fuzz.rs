//! The corpus of every fuzz target, and a bounded number of mutations of each of its files.
//!
//! No search for new faults: that is `cargo +nightly fuzz run` in `fuzz/`. This keeps the known
//! inputs passing and catches what a few thousand random changes of them find.

use std::fs;
use std::path::Path;

use escala_pool::fuzzing;
use fastrand::Rng;

/// Mutations of each file. More find little, fewer take no less time to compile.
const MUTATIONS: usize = 400;

#[test]
fn the_corpus_of_the_tap_and_its_mutations_pass() {
    check("tap", fuzzing::tap);
}

#[test]
fn the_corpus_of_connection_strings_and_its_mutations_pass() {
    check("url", fuzzing::url);
}

/// Runs a target over its corpus; a panic inside is the failure.
fn check(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 5, "{} has {} files", folder.display(), files.len());
    run(b"");
    for path in files {
        let seed = fs::read(&path).unwrap();
        run(&seed);
        // The same for every run and every order of the files.
        let mut chance = Rng::with_seed(seed.len() as u64);
        for _ in 0..MUTATIONS {
            run(&mutated(&seed, &mut chance));
        }
    }
}

/// One to four changes: a byte set, a bit flipped, a piece taken out, doubled or moved.
fn mutated(seed: &[u8], chance: &mut Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..chance.usize(1..=4) {
        let from = chance.usize(..=bytes.len());
        let to = chance.usize(from..=bytes.len().min(from + 40));
        match chance.u8(..6) {
            0 => bytes.insert(from, chance.u8(..)),
            1 => drop(bytes.drain(from..to)),
            2 => bytes.extend_from_within(from..to),
            3 => bytes.rotate_left(from),
            4 if from < bytes.len() => bytes[from] = *chance.choice(INTERESTING).unwrap(),
            _ if from < bytes.len() => bytes[from] ^= 1 << chance.u8(..8),
            _ => {}
        }
    }
    bytes
}

/// Lengths, types of messages, and what parts a connection string.
const INTERESTING: &[u8] = b"\0\x01\x04\x05\x7f\x80\xffZEGCQSfc@:/?&=%,'\\";
