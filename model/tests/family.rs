//! The other models of the family compared with the outputs of their published code.

mod common;
#[path = "common/golden.rs"]
mod golden;

use std::ops::ControlFlow;
use std::path::Path;

use common::runner::{Runner, with};
use common::{fixture, shared_model, with_added_tokens};
use glm_model::{
    Activations, CancelToken, Checkpoint, Chunk, Generation, KvFormat, Model, Options,
    QuantizeOptions, Request, RunOptions, Sampling, quantize, score,
};
use golden::{Goldens, check_activations, check_logits, int8_error, logits_error};

/// Model fixtures in this repository.
const HERE: [&str; 3] =
    ["chatglm-6b-tiny/bin-f16", "chatglm2-6b-tiny/int4", "glm-130b-narrow/int4"];

/// First layers of models whose full fixtures are too large for the repository. They have recorded activations, but no logits.
const LAYERS: [&str; 3] = ["glm-4-9b-chat-hf-layer", "glm-4-0414-layer", "glm-10b-layer"];

/// Models in the shared directory, with their storage formats.
const SHARED: [(&str, &[&str]); 12] = [
    ("chatglm2-6b-tiny", &["f16", "bin-f16-sharded", "int4"]),
    ("chatglm3-6b-tiny", &["f16", "f32"]),
    ("glm-4-9b-chat-tiny", &["bf16"]),
    ("glm-4-9b-chat-hf-tiny", &["bf16"]),
    ("glm-4-0414-tiny", &["bf16"]),
    ("glm4v-text-tiny", &["bf16", "bf16-old"]),
    ("glm-10b-tiny", &["f16", "bin-f16-prefixed"]),
    ("glm-130b-tiny", &["mp1", "mp2", "int4-mp2"]),
    ("glm-130b-narrow", &["mp2", "int4", "int8-mp2"]),
    ("chatglm-6b-tiny", &["f16"]),
    ("glm4-moe-lite-tiny", &["bf16", "bf16-fused", "fused"]),
    ("glm4-moe-tiny", &["bf16", "qk-norm"]),
];

/// Largest error of 8-bit weights with these random weights, relative RMS of the logits. Trained weights have a far smaller
/// error. Measured: 0.064.
const INT8_ERROR: f32 = 0.07;

/// The same of models with experts: where scores are nearly equal, rounding chooses other experts. Measured: 0.20.
const EXPERTS_ERROR: f32 = 0.25;

/// The same in INT4. Measured: 0.69.
const EXPERTS_INT4_ERROR: f32 = 0.75;

/// A check of one model: its name, its folder and its goldens.
type Check = fn(&str, &Path, &Goldens);

fn run(name: &str, dir: &Path, check: Check) {
    println!("{name}");
    let own = dir.join("golden.json").exists();
    let goldens = Goldens::open(if own { dir } else { dir.parent().unwrap() });
    if name.starts_with("glm-10b") {
        check(name, with_added_tokens(dir, goldens.special.to_string()).path(), &goldens);
    } else {
        check(name, dir, &goldens);
    }
}

fn for_each_here(check: Check) {
    HERE.iter().for_each(|name| run(name, &fixture(name), check));
}

fn for_each_shared(check: Check) {
    for (model, forms) in SHARED {
        for form in forms {
            let name = format!("{model}/{form}");
            run(&name, &shared_model(&name), check);
        }
    }
}

#[test]
fn local_models_give_the_recorded_logits() {
    for_each_here(|_, dir, goldens| check_logits(dir, goldens));
}

#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn shared_models_give_the_recorded_logits() {
    for_each_shared(|_, dir, goldens| check_logits(dir, goldens));
}

#[test]
fn local_models_give_the_recorded_activations() {
    for_each_here(|_, dir, goldens| check_activations(dir, goldens));
    LAYERS.iter().for_each(|name| run(name, &fixture(name), |_, d, g| check_activations(d, g)));
}

#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn shared_models_give_the_recorded_activations() {
    for_each_shared(|_, dir, goldens| check_activations(dir, goldens));
}

#[test]
fn local_models_can_be_quantized() {
    for_each_here(check_quantized);
}

#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn shared_models_can_be_quantized() {
    for_each_shared(check_quantized);
}

/// Latent attention to keys of integers also rounds queries and weights to integers.
#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn shared_models_with_latent_attention_have_a_small_error_with_integers() {
    let dir = shared_model("glm4-moe-lite-tiny/bf16");
    let goldens = Goldens::open(dir.parent().unwrap());
    // Measured: 0.0003 (0.0007 in f16), and 0.037.
    for (kv, bound) in [(KvFormat::Int16, 0.0005), (KvFormat::Int8, 0.06)] {
        let options = with(|options: &mut Options| {
            options.activations = Some(Activations::F32);
            options.kv = Some(kv);
        });
        let error = logits_error(&Model::open(&dir, &options).unwrap(), &goldens, 0.5);
        assert!(error < bound, "{kv:?}: {error}");
    }
}

/// Several sequences in a pass, over more than a page of keys and values, have the bits that each has alone.
#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn shared_models_with_experts_give_the_same_bits_in_company() {
    let models = SHARED.iter().filter(|(model, _)| model.contains("-moe-"));
    for (model, forms) in models {
        let dir = shared_model(&format!("{model}/{}", forms[0]));
        let model = Model::open(dir, &Options::default()).unwrap();
        let vocab = model.config().vocab as u32;
        let text = |length: u32, step: u32| (0..length).map(move |at| (at * step + 3) % vocab);
        let texts =
            [(150, 7), (9, 5), (131, 11)].map(|(n, step)| text(n, step).collect::<Vec<_>>());
        let alone = texts.each_ref().map(|text| {
            let mut runner = Runner::new(&model, 160);
            let steps = [&text[..], &[6], &[1]];
            steps.map(|ids| common::runner::bits(&runner.last(ids)))
        });
        let mut sequences = texts.each_ref().map(|_| model.sequence(Some(160)).unwrap());
        let mut workspace = model.workspace().unwrap();
        for step in 0..3 {
            let ids = texts.each_ref().map(|text| [&text[..], &[6], &[1]][step]);
            let chunks = sequences.iter_mut().zip(ids).map(|(it, ids)| Chunk::last(it, ids));
            let mut chunks: Vec<_> = chunks.collect();
            let logits = model.run(&mut workspace, &mut chunks, RunOptions::default()).unwrap();
            for (at, alone) in alone.iter().enumerate() {
                assert!(common::runner::bits(logits.last(at)) == alone[step], "{step} {at}");
            }
        }
    }
}

/// Quantized weights keep their integers and scales. The others are quantized to 8 bits, which has a large error with random
/// weights.
fn check_quantized(name: &str, dir: &Path, goldens: &Goldens) {
    let target = tempfile::tempdir().unwrap();
    let options = QuantizeOptions::new(8, 32);
    let done = quantize(dir, target.path(), &options, &mut |_, _, _| ControlFlow::Continue(()));
    let done = done.unwrap_or_else(|error| panic!("{name}: {error}"));
    println!("{name}: {done:?}");
    assert!(done.quantized > 0 || done.kept > 0, "{name}: {done:?}");
    if done.kept > 0 {
        check_logits(target.path(), goldens);
    }
    let error = int8_error(target.path(), goldens, f32::INFINITY);
    let has_experts = name.contains("-moe-");
    let largest = if has_experts { EXPERTS_ERROR } else { INT8_ERROR };
    assert!(error < largest, "{name}: {error}");
    if has_experts {
        let int4 = tempfile::tempdir().unwrap();
        let options = QuantizeOptions::default();
        quantize(dir, int4.path(), &options, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
        let error = int8_error(int4.path(), goldens, f32::INFINITY);
        assert!(error < EXPERTS_INT4_ERROR, "{name} in INT4: {error}");
    }
    let model = Model::open(target.path(), &Options::default()).unwrap();
    assert_eq!(model.inventory().copied_bytes, 0, "{name}");
    let is_latent = name.contains("-moe-lite-");
    if model.activations() == Activations::Int8 {
        assert_eq!(model.kv(), if is_latent { KvFormat::Int16 } else { KvFormat::F16 }, "{name}");
    }
}

/// The output does not depend on whether the weights are in one file or in two.
#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn quantize_merges_checkpoint_files() {
    let [one, two] = ["mp1", "mp2"].map(|form| shared_model(&format!("glm-130b-tiny/{form}")));
    let write = |dir: &Path| {
        let target = tempfile::tempdir().unwrap();
        let options = QuantizeOptions::default();
        quantize(dir, target.path(), &options, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
        Checkpoint::open(target.path()).unwrap()
    };
    let (one, two) = (write(&one), write(&two));
    assert!(one.names().eq(two.names()));
    for name in one.names().filter(|name| name.ends_with("weight")) {
        let [a, b] = [&one, &two].map(|checkpoint| checkpoint.tensor(name).unwrap().bytes());
        assert!(a == b, "{name}");
    }
}

/// Bits of the logits of the last token of `prompt` and of the tokens after it, and the number of reused tokens.
fn bits(runner: &mut Runner, prompt: &[u32]) -> (Vec<u32>, usize) {
    let kept = runner.model.reusable(prompt, &runner.sequence);
    runner.sequence.truncate(kept);
    let mut all = runner.last(&prompt[kept..]);
    for id in [5, 6] {
        all.extend_from_slice(&runner.last(&[id]));
    }
    (common::runner::bits(&all), kept)
}

/// Reusing a prefix gives the bits of a new sequence.
#[test]
fn prefix_reuse_does_not_change_bits() {
    let context = [7, 8, 9, 10, 11, 12];
    let of = |parts: &[&[u32]]| parts.concat();
    // ChatGLM-6B: 301 is [gMASK], 304 <sop>.
    let answered = of(&[&context, &[301, 304, 5, 6]]);
    let bidirectional = [
        (of(&[&context, &[301, 304]]), 7),
        (of(&[&context, &[301, 304, 5, 9]]), 9),
        (of(&[&context, &[13, 301, 304]]), 0),
        (of(&[&context[..5], &[301, 304]]), 0),
    ];
    let causal =
        [(of(&[&context, &[301, 304]]), 7), (of(&[&context, &[13, 14]]), 6), (vec![8, 7], 0)];
    for (name, cases) in
        [("chatglm-6b-tiny/int4", &bidirectional[..]), ("chatglm2-6b-tiny/int4", &causal[..])]
    {
        let dir = fixture(name);
        for activations in [Activations::F32, Activations::Int8] {
            let model = golden::open(&dir, activations);
            for (prompt, kept) in cases {
                let mut used = Runner::new(&model, 64);
                bits(&mut used, &answered[..8]);
                assert_eq!(used.sequence.ids(), answered);
                let fresh = bits(&mut Runner::new(&model, 64), prompt);
                let again = bits(&mut used, prompt);
                assert_eq!((again.1, fresh.1), (*kept, 0), "{name}: {prompt:?}");
                assert!(again.0 == fresh.0, "{name}: {prompt:?}");
            }
        }
    }
}

/// The multiplications of a prefill are those of its matrices. In the last layer, three of them are computed for one token only.
#[test]
fn prefill_products_are_counted() {
    for name in ["chatglm-6b-tiny/int4", "chatglm2-6b-tiny/int4"] {
        let model = golden::open(&fixture(name), Activations::Int8);
        let (inventory, config) = (model.inventory(), model.config());
        let products = |matrices: &[&str]| -> u64 {
            let these = inventory.matrices.iter().filter(|matrix| matrices.contains(&matrix.name));
            these.map(|matrix| (matrix.count * matrix.shape[0] * matrix.shape[1]) as u64).sum()
        };
        let qkv = products(&["query, key, value"]);
        let rest = products(&["attention output", "MLP up", "MLP down"]);
        let head = (config.vocab * config.hidden) as u64;
        assert!(qkv > 0 && rest > 0);
        assert_eq!(inventory.prefill_products(1), qkv + rest + head, "{name}");
        let ten_more = inventory.prefill_products(11) - inventory.prefill_products(1);
        let layers = config.layers as u64;
        assert_eq!(ten_more, 10 * (qkv + rest / layers * (layers - 1)), "{name}");
    }
}

const ENDS: [u32; 2] = [22, 197];

/// A score is the sum of the log probabilities of the recorded logits.
#[test]
fn scores_match_the_recorded_logits() {
    let dir = fixture("glm-130b-narrow/int4");
    let goldens = Goldens::open(&dir);
    let model = golden::open(&dir, Activations::F32);
    let mut sequence = model.sequence(Some(256)).unwrap();
    let vocab = model.config().vocab;
    let mut score = |prompt: &[u32], answers: &[Vec<u32>]| {
        score(&model, &mut sequence, prompt, answers, &ENDS, &CancelToken::default())
    };
    for case in &goldens.cases {
        let prefill = goldens.tensor(case, "prefill_logits").unwrap();
        let decoded = goldens.tensor(case, "decode_logits").unwrap();
        let rows = [&prefill[prefill.len() - vocab..]].into_iter().chain(decoded.chunks(vocab));
        let log_softmax = |row: &[f32], id: u32| {
            let all: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            f64::from(row[id as usize]) - all.ln()
        };
        let each: Vec<_> = rows.zip(&case.greedy).map(|(row, &id)| log_softmax(row, id)).collect();
        let answers = [case.greedy[..1].to_vec(), case.greedy.clone(), vec![7, 8]];
        let scores = score(&case.prompt, &answers).unwrap();
        assert!((scores[0].log_probability - each[0]).abs() < 1e-3, "{}", case.name);
        let all: f64 = each.iter().sum();
        assert!((scores[1].log_probability - all).abs() < 1e-3 * 12.0, "{}", case.name);
        assert!(scores[2].log_probability < scores[0].log_probability && scores[2].end < 0.0);
        // Again, with a reused sequence.
        assert_eq!(score(&case.prompt, &answers).unwrap(), scores);
        // One answer per call and many answers per call.
        let many: Vec<_> = answers.iter().cycle().take(20).cloned().collect();
        let expected: Vec<_> = scores.iter().cycle().take(20).copied().collect();
        assert_eq!(score(&case.prompt, &many).unwrap(), expected);
        assert_eq!(score(&case.prompt, &answers[1..2]).unwrap(), scores[1..2]);
    }
    let prompt = &goldens.cases[0].prompt;
    let mut refused = |answers: &[Vec<u32>]| score(prompt, answers).is_err();
    assert!(refused(&[vec![]]) && refused(&[vec![9999]]) && refused(&[vec![7; 300]]));
}

/// Complete runs of the published loop over several blanks.
#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn filling_several_blanks_matches_the_published_code() {
    for name in ["glm-130b-tiny", "glm-130b-narrow"] {
        let dir = shared_model(&format!("{name}/mp2"));
        let json = std::fs::read_to_string(dir.join("../golden.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let model = golden::open(&dir, Activations::F32);
        let runs = json["fill_blanks"].as_array().unwrap();
        assert!(!runs.is_empty());
        for step in runs.iter().flat_map(|run| run["steps"].as_array().unwrap()) {
            let ids = |name: &str| serde_json::from_value::<Vec<u32>>(step[name].clone()).unwrap();
            let expected = ids("generated_ids");
            let mut request = Request::new(Sampling::greedy());
            request.max_new_tokens = Some(expected.len());
            request.stop_ids = model.config().special.ends.clone();
            let sequence = model.sequence(None).unwrap();
            let answer = Generation::new(&model, sequence, &ids("input_ids"), request).unwrap();
            assert_eq!(answer.collect::<Result<Vec<_>, _>>().unwrap(), expected, "{name}");
        }
    }
}
