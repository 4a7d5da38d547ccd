//! Linear layers of four or eight bits, their tensors as GPTQ, AWQ and compressed-tensors write them, and models with them.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;

use glm_model::{Checkpoint, Dtype, TensorSpec};
use half::f16;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::fixture;
use crate::stored::{Stored, safetensors};

const HF: &str = "glm-4-0414-layer";

/// The layers of the model, with their groups.
pub fn layers(seed: u64) -> Vec<(&'static str, Layer)> {
    let layer = |name, rows, cols, groups, seed| (name, Layer::new(rows, cols, groups, seed));
    vec![
        layer("model.layers.0.self_attn.q_proj", 128, 128, 4, seed),
        layer("model.layers.0.self_attn.k_proj", 64, 128, 4, seed + 1),
        layer("model.layers.0.self_attn.v_proj", 64, 128, 4, seed + 2),
        layer("model.layers.0.self_attn.o_proj", 128, 128, 2, seed + 3),
        layer("model.layers.0.mlp.gate_up_proj", 688, 128, 1, seed + 4),
        // 344 columns are no multiple of 32: one group.
        layer("model.layers.0.mlp.down_proj", 128, 344, 1, seed + 5),
    ]
}

/// A copy of the model with other tensors for some layers.
pub fn model(layers: &[(&str, Vec<Stored>)], quantization: Option<Value>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let source = fixture(HF);
    let mut config: Value =
        serde_json::from_slice(&fs::read(source.join("config.json")).unwrap()).unwrap();
    if let Some(quantization) = quantization {
        config["quantization_config"] = quantization;
    }
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let checkpoint = Checkpoint::open(&source).unwrap();
    let replaced = |name: &str| layers.iter().any(|(layer, _)| name == format!("{layer}.weight"));
    let kept = checkpoint.names().filter(|name| !replaced(name)).map(|name| {
        let tensor = checkpoint.tensor(name).unwrap();
        (TensorSpec::new(name, tensor.dtype(), tensor.shape()), tensor.bytes().to_vec())
    });
    let all: Vec<_> = kept.chain(layers.iter().flat_map(|(_, stored)| stored.clone())).collect();
    fs::write(dir.path().join("model.safetensors"), safetensors(&all)).unwrap();
    dir
}

pub fn gptq(extra: Value) -> Value {
    let mut config = json!({"quant_method": "gptq", "bits": 4, "group_size": 32});
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    config
}

/// `weight = scale · (integer − zero)`, with integers from 0.
#[derive(Clone)]
pub struct Layer {
    pub rows: usize,
    pub cols: usize,
    pub groups: usize,
    pub bits: usize,
    /// `[rows][cols]`
    pub integers: Vec<u32>,
    /// `[rows][groups]`
    pub zeros: Vec<u32>,
    /// `[rows][groups]`
    pub scales: Vec<f16>,
    /// The group of each column.
    pub group_of: Vec<usize>,
}

/// Which values share a word.
#[derive(Clone, Copy, PartialEq)]
enum Along {
    Rows,
    Columns,
}

impl Layer {
    pub fn new(rows: usize, cols: usize, groups: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut below = |n: u64| random.below(n) as u32;
        let integers = (0..rows * cols).map(|_| below(16)).collect();
        let zeros = (0..rows * groups).map(|_| below(16)).collect();
        let scales = (0..rows * groups).map(|_| f16::from_f32(0.004 + below(1000) as f32 * 1e-5));
        let scales = scales.collect();
        let group_of = (0..cols).map(|col| col / cols.div_ceil(groups)).collect();
        Self { rows, cols, groups, bits: 4, integers, zeros, scales, group_of }
    }

    /// The same with all zero points in the middle.
    pub fn symmetric(mut self) -> Self {
        self.zeros.fill(1 << (self.bits - 1));
        self
    }

    /// The same with eight bits, symmetric.
    pub fn eight(mut self) -> Self {
        self.bits = 8;
        self.integers.iter_mut().enumerate().for_each(|(at, q)| *q = *q * 16 + at as u32 % 16);
        self.symmetric()
    }

    /// The same with its columns in groups that are not adjacent.
    pub fn shuffled(mut self, seed: u64) -> Self {
        let mut random = Random(seed);
        for at in (1..self.cols).rev() {
            self.group_of.swap(at, random.below(at as u64 + 1) as usize);
        }
        self
    }

    pub fn integer(&self, row: usize, col: usize) -> u32 {
        self.integers[row * self.cols + col]
    }

    pub fn zero(&self, row: usize, group: usize) -> u32 {
        self.zeros[row * self.groups + group]
    }

    /// `[rows][cols]`
    pub fn weights(&self) -> Vec<f32> {
        let weight = |row: usize, col: usize| {
            let group = self.group_of[col];
            let steps = self.integer(row, col) as f32 - self.zero(row, group) as f32;
            self.scales[row * self.groups + group].to_f32() * steps
        };
        (0..self.rows).flat_map(|row| (0..self.cols).map(move |col| weight(row, col))).collect()
    }

    pub fn gptq(&self, name: &str, less_one: bool) -> Vec<Stored> {
        let integers = |col, row| self.integer(row, col);
        let mut zeros =
            self.words([self.groups, self.rows], Along::Columns, false, |g, r| self.zero(r, g));
        if less_one {
            let each = if self.bits == 4 { 0x1111_1111 } else { 0x0101_0101 };
            zeros.1.iter_mut().for_each(|word| *word = word.wrapping_sub(each));
        }
        let index = self.group_of.iter().map(|&group| group as u32).collect();
        vec![
            ints(name, "qweight", self.words([self.cols, self.rows], Along::Rows, false, integers)),
            ints(name, "qzeros", zeros),
            self.scales(name, "scales", true),
            ints(name, "g_idx", (vec![self.cols], index)),
        ]
    }

    pub fn awq(&self, name: &str) -> Vec<Stored> {
        let words =
            |axes, get: &dyn Fn(usize, usize) -> u32| self.words(axes, Along::Columns, true, get);
        vec![
            ints(
                name,
                "qweight",
                words([self.cols, self.rows], &|col, row| self.integer(row, col)),
            ),
            ints(name, "qzeros", words([self.groups, self.rows], &|g, row| self.zero(row, g))),
            self.scales(name, "scales", true),
        ]
    }

    pub fn compressed(&self, name: &str, with_zeros: bool) -> Vec<Stored> {
        let integers = |row, col| self.integer(row, col);
        let zeros = |row, group| self.zero(row, group);
        let axes = [self.rows, self.groups];
        let size = [self.rows, self.cols].map(|n| (n as i64).to_le_bytes()).concat();
        let index = self.group_of.iter().map(|&group| group as u32).collect();
        let is_shuffled = !self.group_of.is_sorted();
        let mut all = vec![
            ints(
                name,
                "weight_packed",
                self.words([self.rows, self.cols], Along::Columns, false, integers),
            ),
            self.scales(name, "weight_scale", false),
            (TensorSpec::new(format!("{name}.weight_shape"), Dtype::I64, [2]), size),
        ];
        if with_zeros {
            let zeros = self.words(axes, Along::Rows, false, zeros);
            all.push(ints(name, "weight_zero_point", zeros));
        }
        if is_shuffled {
            all.push(ints(name, "weight_g_idx", (vec![self.cols], index)));
        }
        all
    }

    /// Values of `axes` in words, and the shape of these.
    fn words(
        &self,
        [height, width]: [usize; 2],
        along: Along,
        interleaved: bool,
        get: impl Fn(usize, usize) -> u32,
    ) -> (Vec<usize>, Vec<u32>) {
        let n = 32 / self.bits;
        let place = |i: usize| if interleaved { [0, 2, 4, 6, 1, 3, 5, 7][i] } else { i };
        let shape = match along {
            Along::Rows => [height.div_ceil(n), width],
            Along::Columns => [height, width.div_ceil(n)],
        };
        let word = |first: usize, second: usize| {
            let value = |i: usize| match along {
                Along::Rows if n * first + place(i) < height => get(n * first + place(i), second),
                Along::Columns if n * second + place(i) < width => {
                    get(first, n * second + place(i))
                }
                _ => 0,
            };
            (0..n).fold(0, |word, i| word | value(i) << (self.bits * i))
        };
        let words = (0..shape[0]).flat_map(|a| (0..shape[1]).map(move |b| (a, b)));
        (shape.to_vec(), words.map(|(a, b)| word(a, b)).collect())
    }

    fn scales(&self, name: &str, end: &str, transposed: bool) -> Stored {
        let (rows, groups) = (self.rows, self.groups);
        let (shape, order): (_, Vec<_>) = match transposed {
            true => {
                let all = (0..groups).flat_map(|g| (0..rows).map(move |r| r * groups + g));
                ([groups, rows], all.collect())
            }
            false => ([rows, groups], (0..rows * groups).collect()),
        };
        let bytes = order.into_iter().flat_map(|at| self.scales[at].to_le_bytes()).collect();
        (TensorSpec::new(format!("{name}.{end}"), Dtype::F16, shape), bytes)
    }
}

fn ints(name: &str, end: &str, (shape, values): (Vec<usize>, Vec<u32>)) -> Stored {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    (TensorSpec::new(format!("{name}.{end}"), Dtype::I32, shape), bytes)
}

/// The words of a tensor.
pub fn words(stored: &[Stored], end: &str) -> (Vec<usize>, Vec<u32>) {
    let (spec, bytes) = stored.iter().find(|(spec, _)| spec.name.ends_with(end)).unwrap();
    (spec.shape.clone(), bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect())
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}
