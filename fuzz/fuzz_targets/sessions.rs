//! Whatever was appended, removed, shared and cancelled before, the logits have the bits of a new sequence of the same ids.

#![no_main]

use std::sync::LazyLock;

use glm_fuzz::{Family, fixture, logits};
use glm_model::{CancelToken, Chunk, Error, KvFormat, Model, Options, RunOptions, Sequence};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
enum Operation {
    /// So many ids in one pass.
    Append(u8, Ids),
    /// To two sequences in one pass.
    AppendBoth(u8, Ids, u8, Ids),
    /// A pass that is cancelled at once, or after so many layers.
    Cancel(u8, Ids, Option<u8>),
    Truncate(u8, u16),
    /// A new sequence that shares pages.
    Fork(u8, u16),
    /// As far as a prompt that begins as the sequence does can be shared.
    Share(u8, u16, Ids),
    Drop(u8),
    Check(u8),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Ids {
    count: u8,
    seed: u8,
    /// The id that begins an answer, somewhere.
    sop: Option<u8>,
}

impl Ids {
    fn ids(self, model: &Model) -> Vec<u32> {
        let config = model.config();
        let vocab = config.vocab as u32;
        let special = [config.special.sop, config.special.gmask, config.special.mask];
        let mut ids: Vec<_> = (0..u32::from(self.count % 150))
            .map(|at| (u32::from(self.seed) + at * 7) % vocab)
            .filter(|id| !special.contains(&Some(*id)))
            .collect();
        if let (Some(sop), Some(at), Some(blank)) =
            (config.special.sop, self.sop, config.special.gmask)
        {
            let at = usize::from(at) % (ids.len() + 1);
            ids.splice(at..at, [blank, sop]);
        }
        ids
    }
}

/// Causal with every format of keys and values, and one with a bidirectional context.
static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| {
    let open = |path: &std::path::Path, kv: KvFormat, threads: usize| {
        let mut options = Options::default();
        (options.kv, options.threads) = (Some(kv), Some(threads));
        Model::open(path, &options).expect("a model")
    };
    let causal = Family::Glm4.folder();
    vec![
        open(causal.path(), KvFormat::F32, 2),
        open(causal.path(), KvFormat::F16, 1),
        open(causal.path(), KvFormat::Int16, 1),
        open(causal.path(), KvFormat::Int8, 1),
        open(causal.path(), KvFormat::Int4, 2),
        open(&fixture("chatglm-6b-tiny/int4"), KvFormat::F16, 2),
    ]
});

/// Appends to sequences in one pass. If it fails, they are as before.
fn append(
    model: &Model,
    sequences: &mut [(&mut Sequence, Vec<u32>)],
    options: RunOptions<'_>,
) -> Option<Error> {
    let before: Vec<_> = sequences.iter().map(|(sequence, _)| sequence.ids().to_vec()).collect();
    let mut workspace = model.workspace_with_tile(40).expect("a workspace");
    let mut chunks: Vec<_> =
        sequences.iter_mut().map(|(sequence, ids)| Chunk::last(sequence, ids)).collect();
    let error = model.run(&mut workspace, &mut chunks, options).err();
    drop(chunks);
    for ((sequence, ids), before) in sequences.iter().zip(&before) {
        let added: &[u32] = if error.is_some() { &[] } else { ids };
        assert_eq!(sequence.ids(), [before, added].concat());
    }
    error
}

/// Compares the logits of the next id.
fn check(model: &Model, sequence: &Sequence) {
    let next = 3;
    let mut continued = sequence.fork(sequence.len());
    assert_eq!(continued.ids(), sequence.ids());
    let mut workspace = model.workspace().expect("a workspace");
    let whole = [sequence.ids(), &[next]].concat();
    let expected = logits(model, &whole);
    let found = model.run(
        &mut workspace,
        &mut [Chunk::last(&mut continued, &[next])],
        RunOptions::default(),
    );
    match (found, expected) {
        (Ok(found), Ok(expected)) => {
            let is_same =
                found.last(0).iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(is_same && found.last(0).len() == expected.len(), "of {whole:?}");
        }
        // More context cannot follow a bidirectional one, but may be in it.
        (Err(_), _) => {}
        (Ok(_), Err(error)) => panic!("{error} for {whole:?}"),
    }
}

fuzz_target!(|case: (u8, Vec<Operation>)| {
    let model = &MODELS[usize::from(case.0) % MODELS.len()];
    let mut all: Vec<Sequence> = vec![model.sequence(Some(400)).expect("a sequence")];
    for operation in case.1.into_iter().take(12) {
        let n = all.len();
        let at = |at: u8| usize::from(at) % n;
        match operation {
            Operation::Append(to, ids) => {
                append(model, &mut [(&mut all[at(to)], ids.ids(model))], RunOptions::default());
            }
            Operation::AppendBoth(a, ids_a, b, ids_b) => {
                let Ok([a, b]) = all.get_disjoint_mut([at(a), at(b)]) else { continue };
                append(
                    model,
                    &mut [(a, ids_a.ids(model)), (b, ids_b.ids(model))],
                    RunOptions::default(),
                );
            }
            Operation::Cancel(to, ids, after) => {
                let cancel = CancelToken::default();
                let mut layers = after;
                if layers.is_none() {
                    cancel.cancel();
                }
                let mut progress = |_: f32| {
                    if let Some(left) = &mut layers {
                        *left = left.saturating_sub(1);
                        if *left == 0 {
                            cancel.cancel();
                        }
                    }
                };
                let options =
                    RunOptions::default().cancelled_by(&cancel).with_progress(&mut progress);
                append(model, &mut [(&mut all[at(to)], ids.ids(model))], options);
            }
            Operation::Truncate(to, len) => {
                let sequence = &mut all[at(to)];
                let len = usize::from(len) % (sequence.len() + 2);
                sequence.truncate(len);
                assert!(sequence.len() <= len);
            }
            Operation::Fork(from, len) if n < 4 => {
                let sequence = &all[at(from)];
                let fork = sequence.fork(usize::from(len) % (sequence.len() + 2));
                assert!(sequence.ids().starts_with(fork.ids()));
                all.push(fork);
            }
            Operation::Share(from, len, ids) if n < 4 => {
                let sequence = &all[at(from)];
                let common = &sequence.ids()[..usize::from(len) % (sequence.len() + 1)];
                let prompt = [common, &ids.ids(model)].concat();
                let reusable = model.reusable(&prompt, sequence);
                let mut fork = sequence.fork(reusable);
                assert_eq!(fork.len(), reusable);
                append(
                    model,
                    &mut [(&mut fork, prompt[reusable..].to_vec())],
                    RunOptions::default(),
                );
                all.push(fork);
            }
            Operation::Drop(from) if n > 1 => drop(all.remove(at(from))),
            Operation::Check(from) => check(model, &all[at(from)]),
            _ => {}
        }
    }
    all.iter().for_each(|sequence| check(model, sequence));
    drop(all);
    assert_eq!(model.kv_pool().used_bytes(), 0);
});
