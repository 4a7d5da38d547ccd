//! Recorded outputs of the published model code.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::Value;

/// One recorded conversation of ids.
pub struct Case {
    pub name: String,
    pub prompt: Vec<u32>,
    pub greedy: Vec<u32>,
    /// How clear each greedy choice was.
    pub margins: Vec<f32>,
}

/// `golden.json` and `golden.safetensors`.
pub struct Goldens {
    pub cases: Vec<Case>,
    tensors: Vec<u8>,
}

impl Goldens {
    pub fn open(dir: &Path) -> Self {
        let text = fs::read_to_string(dir.join("golden.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let tensors = fs::read(dir.join("golden.safetensors")).unwrap();
        let cases = json["cases"].as_array().unwrap().iter().map(Case::new).collect();
        Self { cases, tensors }
    }

    /// The tensor `case.name`, if it was recorded.
    pub fn tensor(&self, case: &Case, name: &str) -> Option<Vec<f32>> {
        let all = SafeTensors::deserialize(&self.tensors).unwrap();
        let view = all.tensor(&format!("{}.{name}", case.name)).ok()?;
        let words = view.data().as_chunks().0;
        Some(words.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
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
