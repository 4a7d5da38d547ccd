//! Passes over chunks of several sequences: bits of the logits, memory, and errors.

mod common;
#[path = "common/experts.rs"]
mod experts;
#[path = "common/forge.rs"]
#[allow(dead_code, reason = "this file writes valid files only")]
mod forge;
#[path = "common/stored.rs"]
mod stored;
#[path = "common/tensors.rs"]
mod tensors;

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use common::runner::{Runner, bits, with};
use common::{fixture, with_added_tokens};
use glm_model::{
    Activations, Chunk, Draft, Error, FinishReason, Generation, HookPoint, HookRows, KvFormat,
    LinearRole, Model, Options, QuantizeOptions, Request, RunOptions, Sampling, Sequence, for_each,
    quantize,
};
use proptest::prelude::*;

/// Bidirectional and causal models, with 2D, NeoX and interleaved RoPE and with learned positions; with latent attention, and with experts.
const MODELS: [&str; 8] = [
    LATENT,
    "experts",
    "chatglm-6b-tiny/int4",
    "chatglm2-6b-tiny/int4",
    "glm-10b-layer",
    "glm-130b-narrow/int4",
    "glm-4-9b-chat-hf-layer",
    "glm-4-0414-layer",
];

/// How long a second thread may take to begin.
const PATIENCE: Duration = Duration::from_secs(60);

/// Latent attention and experts.
const LATENT: &str = "latent";

/// The tokens of a sequence.
#[derive(Debug, Clone)]
struct Script {
    ids: Vec<u32>,
    /// Tokens that must be in the first chunk: the bidirectional context.
    first: usize,
}

/// A chunk of a pass.
#[derive(Debug, Clone)]
struct Step {
    sequence: usize,
    tokens: usize,
    wanted: Range<usize>,
    /// Whether the sequence is replaced by a fork, and the original is fed other tokens.
    forks: bool,
}

#[derive(Debug, Clone)]
struct Mix {
    lengths: Vec<(usize, usize)>,
    passes: Vec<Vec<(usize, usize, usize, bool)>>,
    salt: u32,
    tile: usize,
    threads: usize,
    int8: bool,
}

fn mixes() -> impl Strategy<Value = Mix> {
    // Sometimes around the end of a page of keys and values, of 128 positions.
    let prompt = prop_oneof![4 => 1usize..40, 1 => 120usize..136];
    let lengths = prop::collection::vec((prompt, 0usize..12), 1..6);
    let chunk = (1usize..30, 0usize..30, 0usize..30, prop::bool::weighted(0.1));
    let passes = prop::collection::vec(prop::collection::vec(chunk, 6), 1..12);
    let tile = prop_oneof![Just(256usize), 1usize..20];
    let threads = prop::sample::select(vec![1usize, 2, 3, 7]);
    (lengths, passes, any::<u32>(), tile, threads, any::<bool>()).prop_map(
        |(lengths, passes, salt, tile, threads, int8)| Mix {
            lengths,
            passes,
            salt,
            tile,
            threads,
            int8,
        },
    )
}

fn script(model: &Model, (prompt, answer): (usize, usize), salt: u32) -> Script {
    let config = model.config();
    let special = &config.special;
    let mut state = salt;
    let mut id = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // An id that is not special.
        let special = [special.sop, special.mask, special.smask, special.gmask];
        let is_plain = |id: &u32| !special.contains(&Some(*id));
        (0..config.vocab as u32)
            .cycle()
            .skip((state >> 8) as usize % config.vocab)
            .find(is_plain)
            .unwrap()
    };
    let prompt = prompt.min(config.max_context.min(200) - answer - 2);
    let mut ids: Vec<u32> = (0..prompt).map(|_| id()).collect();
    let mut first = 1;
    if let (Some(sop), Some(blank)) = (special.sop, special.mask.or(special.gmask))
        && config.mask != glm_model::MaskKind::Causal
    {
        ids.push(blank);
        first = ids.len();
        ids.push(sop);
    }
    ids.extend((0..answer).map(|_| id()));
    Script { ids, first }
}

/// Bits of the logits of every token, computed without other sequences.
fn alone(model: &Model, script: &Script) -> Vec<Vec<u32>> {
    let vocab = model.config().vocab;
    let all = Runner::new(model, 200).all(&script.ids);
    all.chunks(vocab).map(bits).collect()
}

fn open(name: &str, threads: usize, int8: bool) -> Model {
    let options = with(|options: &mut Options| {
        options.threads = Some(threads);
        options.activations = Some(if int8 { Activations::Int8 } else { Activations::F32 });
        options.kv = Some(if int8 { KvFormat::Int4 } else { KvFormat::F32 });
    });
    let kind = match name {
        LATENT => Some(experts::Kind::Latent),
        "experts" => Some(experts::Kind::Grouped),
        _ => None,
    };
    if let Some(kind) = kind {
        let dir = experts::tiny(kind);
        if !int8 {
            return Model::open(dir.path(), &options).unwrap();
        }
        let target = tempfile::tempdir().unwrap();
        let format = QuantizeOptions::default();
        let going = &mut |_: u64, _: u64, _: &str| ControlFlow::Continue(());
        quantize(dir.path(), target.path(), &format, going).unwrap();
        return Model::open(target.path(), &options).unwrap();
    }
    let dir = fixture(name);
    if name.starts_with("glm-10b") {
        // Its special ids come from the tokenizer, which the fixture does not have.
        let golden = std::fs::read_to_string(dir.join("golden.json")).unwrap();
        let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
        let copy = with_added_tokens(&dir, golden["special"].to_string());
        return Model::open(copy.path(), &options).unwrap();
    }
    Model::open(dir, &options).unwrap()
}

/// As [`open`]; the model is shared by all tests.
fn model(name: &str, threads: usize, int8: bool) -> Model {
    type Key = (String, usize, bool);
    static OPEN: LazyLock<Mutex<HashMap<Key, Model>>> = LazyLock::new(Mutex::default);
    let key = (name.to_owned(), threads, int8);
    let mut models = OPEN.lock().unwrap();
    models.entry(key).or_insert_with(|| open(name, threads, int8)).clone()
}

/// Runs the passes of a mix. Every wanted row must have the bits of a run with one sequence and one thread.
fn check(name: &str, mix: &Mix) {
    let reference = model(name, 1, mix.int8);
    let model = model(name, mix.threads, mix.int8);
    let vocab = model.config().vocab;
    let scripts: Vec<_> = (0..)
        .zip(&mix.lengths)
        .map(|(i, &lengths)| script(&model, lengths, mix.salt.wrapping_add(i * 77)))
        .collect();
    let expected: Vec<_> = scripts.iter().map(|script| alone(&reference, script)).collect();
    let mut sequences: Vec<_> = scripts.iter().map(|_| model.sequence(None).unwrap()).collect();
    let mut workspace = model.workspace_with_tile(mix.tile).unwrap();
    // Copies whose pages stay shared.
    let mut kept = Vec::new();
    for pass in &mix.passes {
        let mut steps = Vec::new();
        for (sequence, &(tokens, from, to, forks)) in pass.iter().enumerate().take(scripts.len()) {
            // Now and then shortened, be it within a shared page.
            if from % 7 == 0 {
                let len = sequences[sequence].len() * to / 30;
                sequences[sequence].truncate(len);
            }
            let (script, fed) = (&scripts[sequence], sequences[sequence].len());
            let left = script.ids.len() - fed;
            let least = if fed == 0 { script.first } else { 1 };
            if left == 0 {
                // The script is finished: restart with a prefix.
                sequences[sequence].truncate(from % 3 * 10);
                continue;
            }
            let tokens = tokens.max(least).min(left);
            let (from, to) = (from % (tokens + 1), to % (tokens + 1));
            steps.push(Step { sequence, tokens, wanted: from.min(to)..from.max(to), forks });
        }
        let mut originals: Vec<Sequence> = Vec::new();
        for step in steps.iter().filter(|step| step.forks) {
            let sequence = &mut sequences[step.sequence];
            let fork = sequence.fork(sequence.len());
            let original = std::mem::replace(sequence, fork);
            // A sequence with only a bidirectional context can be extended by the start of an answer alone.
            let extended = original.len() + 2;
            if original.len() > scripts[step.sequence].first && extended <= original.capacity() {
                originals.push(original);
            } else {
                kept.push(original);
            }
        }
        let mut chunks = Vec::new();
        let mut rest = sequences.iter_mut().enumerate();
        for step in &steps {
            let (_, sequence) = rest.find(|(index, _)| *index == step.sequence).unwrap();
            let ids = &scripts[step.sequence].ids[sequence.len()..][..step.tokens];
            chunks.push(Chunk { sequence, ids, wanted: step.wanted.clone() });
        }
        // The originals of forks share pages with them and are extended in the same pass.
        let other = script(&model, (9, 3), 5);
        for original in &mut originals {
            chunks.push(Chunk::none(original, &other.ids[other.ids.len() - 2..]));
        }
        if chunks.is_empty() {
            continue;
        }
        let before: Vec<_> = chunks.iter().map(|chunk| chunk.sequence.len()).collect();
        let logits = model.run(&mut workspace, &mut chunks, RunOptions::default()).unwrap();
        for (index, step) in steps.iter().enumerate() {
            let rows: Vec<_> = logits.chunk(index).map(bits).collect();
            let first = before[index] + step.wanted.start;
            assert_eq!(rows.len(), step.wanted.len());
            for (i, row) in rows.iter().enumerate() {
                assert_eq!(row.len(), vocab);
                assert!(*row == expected[step.sequence][first + i], "{name}: {step:?} row {i}");
            }
        }
        kept.extend(originals);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Bits do not depend on other sequences, on the chunks of a prompt, on the tile size, or on the number of threads.
    #[test]
    fn batching_does_not_change_bits(mix in mixes()) {
        MODELS.iter().for_each(|name| check(name, &mix));
    }
}

/// Contexts of several pages, some of them shared, in one pass.
#[test]
fn long_sequences_share_pages() {
    for name in ["chatglm2-6b-tiny/int4", "glm-130b-narrow/int4"] {
        let model = open(name, 2, true);
        let special = &model.config().special;
        let blank = [special.gmask.or(special.mask), special.sop].map(|id| id.unwrap_or(9));
        let prompt = [&[7; 150][..], &blank, &[11; 100]].concat();
        let mut first = Runner::new(&model, 400);
        first.last(&prompt);
        let used = model.kv_pool().used_bytes();
        let mut forks: Vec<_> = (0..4).map(|_| first.sequence.fork(prompt.len())).collect();
        assert_eq!(model.kv_pool().used_bytes(), used, "a fork takes no pages");
        let expected: Vec<_> = (0..4u32)
            .map(|i| {
                let mut alone = Runner::new(&model, 400);
                alone.last(&prompt);
                bits(&alone.last(&[20 + i]))
            })
            .collect();
        let ids: Vec<_> = (0..4u32).map(|i| [20 + i]).collect();
        let mut chunks: Vec<_> =
            forks.iter_mut().zip(&ids).map(|(fork, ids)| Chunk::last(fork, ids)).collect();
        let logits = model.run(&mut first.workspace, &mut chunks, RunOptions::default()).unwrap();
        for (i, expected) in expected.iter().enumerate() {
            assert!(bits(logits.last(i)) == *expected, "{name}: fork {i}");
        }
        let page = model.kv_pool().page_bytes();
        assert_eq!(
            model.kv_pool().used_bytes(),
            used + 4 * page,
            "each has a copy of the last page"
        );
        drop(forks);
        assert_eq!(model.kv_pool().used_bytes(), used);
        drop(first);
        assert_eq!(model.kv_pool().used_bytes(), 0);
    }
}

#[test]
fn sequences_allocate_on_demand_and_survive_a_full_pool() {
    let dir = fixture("chatglm2-6b-tiny/int4");
    let page = Model::open(&dir, &Options::default()).unwrap().kv_pool().page_bytes();
    let options = with(|options: &mut Options| options.kv_budget = Some(3 * page + page / 2));
    let model = Model::open(&dir, &options).unwrap();
    let pool = model.kv_pool();
    let free = || pool.free_bytes().unwrap() / page;
    let mut workspace = model.workspace().unwrap();
    let (mut a, mut b) = (model.sequence(None).unwrap(), model.sequence(None).unwrap());
    assert_eq!((pool.used_bytes(), a.kv_bytes(), free()), (0, 0, 3));
    let mut feed = |sequence: &mut Sequence, n: usize| {
        let ids = vec![7; n];
        let mut chunks = [Chunk::last(sequence, &ids)];
        let done = model.run(&mut workspace, &mut chunks, RunOptions::default());
        done.map(|logits| bits(logits.last(0)))
    };
    feed(&mut a, 100).unwrap();
    assert_eq!((a.kv_bytes(), free()), (page, 2));
    feed(&mut b, 129).unwrap();
    assert_eq!((b.kv_bytes(), free()), (2 * page, 0));
    let error = feed(&mut a, 29).unwrap_err();
    assert!(matches!(error, Error::KvBudget { free: 0, .. }), "{error}");
    assert!(error.to_string().contains("end a conversation"), "{error}");
    assert_eq!((a.len(), b.len(), free()), (100, 129, 0));
    let next = feed(&mut a, 28).unwrap();
    drop(b);
    assert_eq!(free(), 2);
    // The failed call did not change the sequence.
    let mut alone = model.sequence(None).unwrap();
    feed(&mut alone, 100).unwrap();
    assert!(feed(&mut alone, 28).unwrap() == next);
    drop(alone);
    feed(&mut a, 1).unwrap();
    assert_eq!(free(), 1);
    a.truncate(128);
    assert_eq!(free(), 2);
    a.clear();
    assert_eq!((free(), a.kv_bytes()), (3, 0));
    // One of two chunks exceeds the budget: neither sequence changes.
    let mut b = model.sequence(None).unwrap();
    let (short, long) = (vec![7; 10], vec![7; 500]);
    let mut workspace = model.workspace().unwrap();
    let mut chunks = [Chunk::last(&mut a, &short), Chunk::last(&mut b, &long)];
    assert!(model.run(&mut workspace, &mut chunks, RunOptions::default()).is_err());
    assert_eq!((a.len(), b.len(), free()), (0, 0, 3));
}

#[test]
fn invalid_chunks_are_errors_and_change_nothing() {
    let causal = model("chatglm2-6b-tiny/int4", 2, true);
    let prefix = model("chatglm-6b-tiny/int4", 2, true);
    let mut runner = Runner::new(&causal, 16);
    runner.last(&[5, 6]);
    let mut foreign = prefix.sequence(None).unwrap();
    let mut foreign_workspace = prefix.workspace().unwrap();
    let Runner { model, sequence, workspace } = &mut runner;
    let mut error = |sequence: &mut Sequence, ids: &[u32], wanted: Range<usize>| {
        let mut chunks = [Chunk { sequence, ids, wanted }];
        let done = model.run(workspace, &mut chunks, RunOptions::default());
        done.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(error(sequence, &[], 0..0).contains("no ids"));
    assert!(error(sequence, &[1 << 30], 0..0).contains("outside the vocabulary"));
    assert!(error(sequence, &[5], 0..2).contains("wanted"));
    #[expect(clippy::reversed_empty_ranges, reason = "an invalid range on purpose")]
    let reversed = 1..0;
    assert!(error(sequence, &[5], reversed).contains("wanted"));
    assert!(error(sequence, &[5; 15], 0..0).contains("17 tokens are needed"));
    assert!(error(&mut foreign, &[5], 0..0).contains("sequence belongs to another model"));
    let mut chunks = [Chunk::last(sequence, &[5])];
    let done = model.run(&mut foreign_workspace, &mut chunks, RunOptions::default());
    assert!(matches!(done, Err(Error::OtherModel("workspace"))));
    assert_eq!(sequence.ids(), [5, 6]);
    // A pass without chunks.
    assert_eq!(model.run(workspace, &mut [], RunOptions::default()).unwrap().chunk(0).len(), 0);

    // A bidirectional context cannot be split.
    let mut runner = Runner::new(&prefix, 16);
    runner.last(&[5, 6]);
    let mut chunks = [Chunk::last(&mut runner.sequence, &[7])];
    let done = prefix.run(&mut runner.workspace, &mut chunks, RunOptions::default());
    assert!(done.err().unwrap().to_string().contains("sop"));
    assert_eq!(runner.sequence.ids(), [5, 6]);
}

#[test]
fn sequences_of_a_dropped_model_are_refused() {
    let dir = fixture("chatglm2-6b-tiny/int4");
    let open = || Model::open(&dir, &Options::default()).unwrap();
    let mut sequence = open().sequence(None).unwrap();
    // Often allocated at the address of the dropped model.
    for _ in 0..20 {
        let model = open();
        let mut workspace = model.workspace().unwrap();
        let mut chunks = [Chunk::last(&mut sequence, &[5])];
        let done = model.run(&mut workspace, &mut chunks, RunOptions::default());
        assert!(matches!(done, Err(Error::OtherModel("sequence"))));
    }
}

/// A hook is called with the inputs of every linear layer, and can use all threads of the pass.
#[test]
fn a_hook_sees_the_inputs_of_every_linear_layer() {
    for name in ["chatglm-6b-tiny/int4", "chatglm2-6b-tiny/int4", "glm-4-0414-layer"] {
        let model = model(name, 3, true);
        let config = model.config();
        let prompts = [script(&model, (20, 4), 1).ids, script(&model, (7, 0), 2).ids];
        let mut seen: HashMap<HookPoint, usize> = HashMap::new();
        let threads = Mutex::new(std::collections::HashSet::new());
        let mut hook = |point: HookPoint, rows: &HookRows<'_>| {
            let width = match point {
                HookPoint::Input(_, LinearRole::AttentionOutput) => config.heads * config.head_size,
                HookPoint::Input(_, LinearRole::Down) => config.intermediate_size,
                _ => config.hidden,
            };
            assert_eq!(rows.width(), width, "{name}: {point:?}");
            assert!(rows.values().iter().all(|x| x.is_finite()));
            let in_chunks: usize = rows.chunks().map(|(_, _, values)| values.len()).sum();
            assert_eq!(in_chunks, rows.values().len());
            *seen.entry(point).or_default() += rows.values().len() / width;
            // On a busy machine, one thread would do all before another runs.
            let started = Instant::now();
            for_each(64, |_| {
                threads.lock().unwrap().insert(std::thread::current().id());
                while threads.lock().unwrap().len() < 2 && started.elapsed() < PATIENCE {
                    std::thread::yield_now();
                }
            });
        };
        let mut workspace = model.workspace_with_tile(9).unwrap();
        let mut sequences = [0, 1].map(|_| model.sequence(None).unwrap());
        let [a, b] = &mut sequences;
        let mut chunks = [Chunk::all(a, &prompts[0]), Chunk::all(b, &prompts[1])];
        let options = RunOptions::default().with_hook(&mut hook);
        let logits = model.run(&mut workspace, &mut chunks, options).unwrap();
        let observed: Vec<_> = (0..2).map(|i| logits.chunk(i).map(bits).collect()).collect();
        let tokens = prompts[0].len() + prompts[1].len();
        let roles =
            [LinearRole::Qkv, LinearRole::AttentionOutput, LinearRole::Up, LinearRole::Down];
        for point in roles
            .into_iter()
            .flat_map(|role| (0..config.layers).map(move |l| HookPoint::Input(l, role)))
        {
            assert_eq!(seen.get(&point), Some(&tokens), "{name}: {point:?}");
        }
        assert!(threads.lock().unwrap().len() > 1, "one thread did all");
        // A hook does not change the logits.
        for (i, prompt) in prompts.iter().enumerate() {
            let all = Runner::new(&model, 100).all(prompt);
            let rows: Vec<_> = all.chunks(config.vocab).map(bits).collect();
            let observed: &Vec<Vec<u32>> = &observed[i];
            assert!(*observed == rows, "{name}");
        }
    }
}

/// A sink receives the same logits that a pass without a sink returns.
#[test]
fn a_sink_receives_the_same_logits() {
    let models = ["chatglm-6b-tiny/int4", "chatglm2-6b-tiny/int4"];
    for (name, tile) in models.iter().flat_map(|name| [1, 2, 15, 23].map(|tile| (name, tile))) {
        let model = model(name, 2, false);
        let prompts = [script(&model, (50, 9), 1), script(&model, (7, 2), 2)];
        let mut rows = Vec::new();
        let mut sink =
            |chunk: usize, token: usize, logits: &[f32]| rows.push((chunk, token, bits(logits)));
        let mut sequences = [0, 1].map(|_| model.sequence(None).unwrap());
        let [a, b] = &mut sequences;
        let wanted = prompts[0].ids.len() - 30..prompts[0].ids.len() - 1;
        let mut chunks = [
            Chunk { sequence: a, ids: &prompts[0].ids, wanted: wanted.clone() },
            Chunk::all(b, &prompts[1].ids),
        ];
        let options = RunOptions::default().with_logits(&mut sink);
        let mut workspace = model.workspace_with_tile(tile).unwrap();
        let kept = model.run(&mut workspace, &mut chunks, options).unwrap();
        assert_eq!((kept.chunk(0).len(), kept.chunk(1).len()), (0, 0));
        let expected: Vec<_> = prompts.iter().map(|prompt| alone(&model, prompt)).collect();
        let all = wanted.map(|token| (0, token)).chain((0..prompts[1].ids.len()).map(|t| (1, t)));
        let all: Vec<_> = all.map(|(c, t)| (c, t, expected[c][t].clone())).collect();
        assert!(rows == all, "{name}");
    }
}

/// Drafts of any length do not change an answer, greedy or sampled, for any finish reason.
#[test]
fn drafts_do_not_change_answers() {
    let drafts = [Draft::Off, Draft::Auto, Draft::Fixed(1), Draft::Fixed(3), Draft::Fixed(15)];
    let mut accepted = 0;
    for name in ["chatglm-6b-tiny/int4", "chatglm2-6b-tiny/int4", "glm-130b-narrow/int4"] {
        let model = model(name, 2, true);
        let prompt = script(&model, (12, 0), 3).ids;
        let samplings = [
            Sampling::greedy(),
            with(|s: &mut Sampling| (s.temperature, s.seed) = (0.3, 7)),
            with(|s: &mut Sampling| (s.temperature, s.top_k, s.repetition_penalty) = (0.8, 3, 1.1)),
        ];
        for sampling in samplings {
            for (max, capacity, stops) in [
                (Some(70), None, vec![]),
                (None, Some(64), vec![]),
                (Some(60), None, vec![9, 30, 44]),
            ] {
                let answer = |draft: Draft| {
                    let mut request = Request::new(sampling.clone());
                    request.max_new_tokens = max;
                    request.stop_ids = stops.clone();
                    request.draft = draft;
                    let sequence = model.sequence(capacity).unwrap();
                    let mut answer = Generation::new(&model, sequence, &prompt, request).unwrap();
                    let ids: Vec<_> = answer.by_ref().map(Result::unwrap).collect();
                    let (finish, stats) = (answer.finish_reason(), answer.draft_stats());
                    let sequence = answer.into_sequence();
                    let fed = &sequence.ids()[prompt.len()..];
                    assert!(ids.starts_with(fed) && ids.len() - fed.len() <= 1);
                    (ids, finish, stats)
                };
                let (ids, finish, _) = answer(Draft::Off);
                assert!(finish.is_some_and(|finish| finish != FinishReason::Cancelled));
                for draft in drafts {
                    let (drafted, end, stats) = answer(draft);
                    assert_eq!((&drafted, end), (&ids, finish), "{name}: {draft:?}");
                    assert!(stats.accepted <= stats.drafted);
                    if draft == Draft::Fixed(15) {
                        accepted += stats.accepted;
                        assert_eq!(stats.passes + stats.accepted, stats.ids);
                    }
                }
            }
        }
    }
    assert!(accepted > 50, "drafts were tested: {accepted} accepted");
}

/// A draft for which there is no memory is not verified; the answer goes on without it.
#[test]
fn a_draft_needs_no_more_memory_than_the_answer() {
    let dir = fixture("chatglm2-6b-tiny/int4");
    let page = Model::open(&dir, &Options::default()).unwrap().kv_pool().page_bytes();
    let model = Model::open(&dir, &with(|o: &mut Options| o.kv_budget = Some(page))).unwrap();
    let generate = |prompt: &[u32], draft, most| {
        // Ids that occurred are preferred, so the answer repeats itself.
        let mut request = Request::new(with(|s: &mut Sampling| s.repetition_penalty = 0.1));
        (request.draft, request.max_new_tokens) = (draft, most);
        Generation::new(&model, model.sequence(Some(300)).unwrap(), prompt, request).unwrap()
    };
    // A prompt that the model would continue in the same way.
    let mut prompt = script(&model, (14, 0), 3).ids;
    let repetition = generate(&prompt, Draft::Off, Some(114 - prompt.len()));
    prompt.extend(repetition.map(Result::unwrap));
    let answer = |draft| {
        let mut answer = generate(&prompt, draft, None);
        let ids: Vec<_> = answer.by_ref().map_while(Result::ok).collect();
        (ids, answer.draft_stats().drafted)
    };
    let (ids, _) = answer(Draft::Off);
    // The prompt has 114 tokens; the page holds 128, and one more id is drawn.
    assert_eq!(ids.len(), 15);
    let mut drafted = 0;
    for n in 1..=15 {
        let (with_drafts, tried) = answer(Draft::Fixed(n));
        assert_eq!(with_drafts, ids, "drafts of {n}");
        drafted += tried;
    }
    assert!(drafted > 0, "there were no drafts");
}

/// A hook that panics: the sequence and the workspace can be used again, and no page is lost.
#[test]
fn a_panic_in_a_hook_loses_nothing() {
    let model = open("chatglm2-6b-tiny/int4", 3, true);
    let mut runner = Runner::new(&model, 300);
    runner.last(&[5; 100]);
    let expected = bits(&Runner::new(&model, 300).last(&[[5; 100], [6; 100]].concat()));
    let (used, ids) = (model.kv_pool().used_bytes(), [6; 100]);
    let mut hook = |point: HookPoint, _: &HookRows<'_>| assert_ne!(point, HookPoint::Layer(0));
    let pass = std::panic::AssertUnwindSafe(|| {
        let options = RunOptions::default().with_hook(&mut hook);
        let mut chunks = [Chunk::last(&mut runner.sequence, &ids)];
        model.run(&mut runner.workspace, &mut chunks, options).is_ok()
    });
    assert!(std::panic::catch_unwind(pass).is_err());
    assert_eq!(runner.sequence.len(), 100);
    assert_eq!(bits(&runner.last(&ids)), expected);
    runner.sequence.clear();
    assert!(used > 0 && model.kv_pool().used_bytes() == 0);
}

/// What is made by another model is refused everywhere, and a budget of less than a page at once.
#[test]
fn sequences_of_other_models_are_refused() {
    let (model, other) =
        (open("chatglm2-6b-tiny/int4", 1, true), open("chatglm2-6b-tiny/int4", 1, true));
    let foreign = || other.sequence(None).unwrap();
    let request = Request::new(Sampling::greedy());
    let refused = Generation::new(&model, foreign(), &[5], request).err().unwrap();
    assert!(matches!(refused, Error::OtherModel("sequence")));
    let cancel = glm_model::CancelToken::default();
    let refused = glm_model::score(&model, &mut foreign(), &[5], &[vec![6]], &[], &cancel);
    assert!(matches!(refused, Err(Error::OtherModel("sequence"))));
    assert!(model.workspace_with_tile(usize::MAX).is_ok());
    let options = with(|options: &mut Options| options.kv_budget = Some(10));
    let refused = Model::open(fixture("chatglm2-6b-tiny/int4"), &options).err().unwrap();
    assert!(refused.to_string().contains("at least"), "{refused}");
}
