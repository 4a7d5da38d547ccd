//! Recorded outputs of the published model code, and comparisons with them.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use glm_model::{Activations, Chunk, HookPoint, HookRows, Model, Options, RunOptions};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::common::runner::{Runner, bits, with};

/// One recorded conversation of ids.
pub struct Case {
    pub name: String,
    pub prompt: Vec<u32>,
    pub greedy: Vec<u32>,
    /// Margin of each greedy choice.
    pub margins: Vec<f32>,
}

/// `golden.json` and `golden.safetensors`.
pub struct Goldens {
    pub cases: Vec<Case>,
    /// Special ids by name, where they are recorded.
    #[allow(dead_code)]
    pub special: Value,
    tensors: Vec<u8>,
}

impl Goldens {
    pub fn open(dir: &Path) -> Self {
        let text = fs::read_to_string(dir.join("golden.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let tensors = fs::read(dir.join("golden.safetensors")).unwrap();
        let cases = json["cases"].as_array().unwrap().iter().map(Case::new).collect();
        Self { cases, special: json["special"].clone(), tensors }
    }

    /// The tensor `case.name`, if it was recorded.
    pub fn tensor(&self, case: &Case, name: &str) -> Option<Vec<f32>> {
        let all = SafeTensors::deserialize(&self.tensors).unwrap();
        let view = all.tensor(&format!("{}.{name}", case.name)).ok()?;
        let words = view.data().as_chunks().0.iter();
        Some(match view.dtype() {
            Dtype::I32 => words.map(|&bytes| i32::from_le_bytes(bytes) as f32).collect(),
            _ => words.map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        })
    }

    /// Names of the tensors of a case that start with `prefix`, without it.
    pub fn names(&self, case: &Case, prefix: &str) -> Vec<String> {
        let all = SafeTensors::deserialize(&self.tensors).unwrap();
        let prefix = format!("{}.{prefix}", case.name);
        all.names()
            .into_iter()
            .filter_map(|name| Some(name.strip_prefix(&prefix)?.to_owned()))
            .collect()
    }
}

impl Case {
    fn new(json: &Value) -> Self {
        let ids = |name: &str| {
            let ids = json[name].as_array().unwrap();
            ids.iter().map(|id| id.as_u64().unwrap() as u32).collect()
        };
        let margins = json["top1_minus_top2_at_each_choice"].as_array().unwrap();
        Self {
            name: json["name"].as_str().unwrap().to_owned(),
            prompt: ids("prompt_ids"),
            greedy: ids("greedy_ids"),
            margins: margins.iter().map(|m| m.as_f64().unwrap() as f32).collect(),
        }
    }
}

/// The largest difference between two rows of numbers.
pub fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |max, d| if d > max || d.is_nan() { d } else { max })
}

/// The index of the largest number.
pub fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as u32
}

/// The error of the published code itself is 1e-5.
const TOLERANCE: f32 = 2e-4;

pub fn open(dir: &Path, activations: Activations) -> Model {
    let options = with(|options: &mut Options| {
        options.activations = Some(activations);
        options.threads = Some(2);
    });
    Model::open(dir, &options).unwrap()
}

/// Prefill logits, decode logits and greedy ids of every case of a model.
pub fn check_logits(dir: &Path, goldens: &Goldens) {
    let model = open(dir, Activations::F32);
    let vocab = model.config().vocab;
    let mut runner = Runner::new(&model, 512);
    for case in &goldens.cases {
        runner.sequence.clear();
        let prefill = runner.all(&case.prompt);
        // For a long prompt only the last rows may be recorded.
        let recorded = goldens.tensor(case, "prefill_logits").unwrap();
        let worst = distance(&prefill[prefill.len() - recorded.len()..], &recorded);
        assert!(worst < TOLERANCE, "{}: prefill is off by {worst}", case.name);

        // Logits of the last token only, and the cache for the tokens after it.
        runner.sequence.clear();
        let last = runner.last(&case.prompt);
        assert_eq!(bits(&last), bits(&prefill[prefill.len() - vocab..]), "{}", case.name);

        assert_eq!(argmax(&last), case.greedy[0], "{}", case.name);
        let decoded = goldens.tensor(case, "decode_logits").unwrap();
        for (step, expected) in decoded.chunks(vocab).enumerate() {
            let logits = runner.last(&case.greedy[step..=step]);
            let worst = distance(&logits, expected);
            assert!(worst < TOLERANCE, "{}: step {step} is off by {worst}", case.name);
            if let Some(&next) = case.greedy.get(step + 1) {
                assert_eq!(argmax(&logits), next, "{}: step {step}", case.name);
            }
        }
    }
}

/// Recorded activations inside of a block, which no hook shows.
const INNER: [&str; 6] = [".router_scores", ".routed", ".shared", ".q", ".kv_a", ".latent"];

pub fn check_activations(dir: &Path, goldens: &Goldens) {
    let model = open(dir, Activations::F32);
    let mut compared = 0;
    for case in &goldens.cases {
        let mut seen = HashMap::<_, Vec<f32>>::new();
        let mut hook = |point: HookPoint, rows: &HookRows<'_>| {
            if let HookPoint::Experts(layer) = point {
                // The experts of a token, then their weights.
                for row in rows.values().chunks(rows.width()) {
                    let (chosen, weights) = row.split_at(row.len() / 2);
                    for (name, values) in [("expert_ids", chosen), ("expert_weights", weights)] {
                        let all = seen.entry(format!("layer{layer}.{name}")).or_default();
                        all.extend_from_slice(values);
                    }
                }
                return;
            }
            let name = match point {
                HookPoint::Embedding => "embedding".to_owned(),
                HookPoint::Positions => "embedding_plus_positions".to_owned(),
                HookPoint::Attention(layer) => format!("layer{layer}.attention"),
                HookPoint::FeedForward(layer) => format!("layer{layer}.mlp"),
                HookPoint::Layer(layer) => format!("layer{layer}"),
                HookPoint::FinalNorm => "final_norm".to_owned(),
                _ => return,
            };
            let all = seen.entry(name).or_default();
            for (chunk, first, rows) in rows.chunks() {
                assert_eq!((chunk, all.len()), (0, first * model.config().hidden));
                all.extend_from_slice(rows);
            }
        };
        let mut sequence = model.sequence(None).unwrap();
        let mut workspace = model.workspace_with_tile(5).unwrap();
        let options = RunOptions::default().with_hook(&mut hook);
        model.run(&mut workspace, &mut [Chunk::all(&mut sequence, &case.prompt)], options).unwrap();
        for name in goldens.names(case, "act.") {
            if INNER.iter().any(|inner| name.ends_with(inner)) {
                continue;
            }
            let worst =
                distance(&seen[&name], &goldens.tensor(case, &format!("act.{name}")).unwrap());
            assert!(worst < TOLERANCE, "{} {name} is off by {worst}", case.name);
            compared += 1;
        }
    }
    assert!(compared > 0, "no activations were recorded");
}

/// Error of the logits with 8-bit activations, relative RMS. Greedy choices with a margin of at least `sure` must be the same.
pub fn int8_error(dir: &Path, goldens: &Goldens, sure: f32) -> f32 {
    logits_error(&open(dir, Activations::Int8), goldens, sure)
}

/// As [`int8_error`], for an open model.
pub fn logits_error(model: &Model, goldens: &Goldens, sure: f32) -> f32 {
    let mut runner = Runner::new(model, 512);
    let (mut error, mut size) = (0.0, 0.0);
    let mut add = |logits: &[f32], expected: &[f32]| {
        error += logits.iter().zip(expected).map(|(l, e)| f64::from(l - e).powi(2)).sum::<f64>();
        size += expected.iter().map(|&e| f64::from(e).powi(2)).sum::<f64>();
    };
    for case in &goldens.cases {
        runner.sequence.clear();
        let mut logits = runner.last(&case.prompt);
        let vocab = model.config().vocab;
        let prefill = goldens.tensor(case, "prefill_logits").unwrap();
        let decoded = goldens.tensor(case, "decode_logits").unwrap();
        let rows = [&prefill[prefill.len() - vocab..]].into_iter().chain(decoded.chunks(vocab));
        for (step, expected) in rows.enumerate() {
            add(&logits, expected);
            let Some(&next) = case.greedy.get(step) else { break };
            if case.margins[step] > sure {
                assert_eq!(argmax(&logits), next, "{}: step {step}", case.name);
            }
            logits = runner.last(&[next]);
        }
    }
    let relative = (error / size).sqrt() as f32;
    let (activations, kv) = (model.activations(), model.kv());
    println!("{activations:?}, {kv:?}: relative RMS error of the logits {relative:.5}");
    relative
}
