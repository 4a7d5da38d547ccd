//! Random tensors, and files with them.

#![allow(dead_code, reason = "each test file uses its part")]

use serde_json::json;

use crate::forge;

pub struct Lcg(pub u32);

impl Lcg {
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    /// Numbers from `-scale / 2` to `scale / 2`. A bias has one axis.
    pub fn tensor(&mut self, name: impl Into<String>, shape: [usize; 2], scale: f32) -> Tensor {
        let (name, count) = (name.into(), shape.iter().product());
        let mut value = || (self.next() as f32 / (1 << 24) as f32 - 0.5) * scale;
        let shape = if name.ends_with("bias") { vec![shape[0]] } else { shape.to_vec() };
        Tensor { name, shape, values: (0..count).map(|_| value()).collect() }
    }
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

pub fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for tensor in tensors {
        let start = data.len();
        data.extend(bytes(&tensor.values));
        let entry =
            json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, data.len()]});
        header.insert(tensor.name.clone(), entry);
    }
    forge::safetensors(&serde_json::Value::Object(header).to_string(), &data)
}

/// The file that a training writes.
pub fn torch(tensors: &[Tensor]) -> Vec<u8> {
    let described: Vec<(i64, Vec<i64>, Vec<i64>)> = tensors
        .iter()
        .map(|tensor| {
            let shape: Vec<_> = tensor.shape.iter().map(|&n| n as i64).collect();
            let strides = if shape.len() == 2 { vec![shape[1], 1] } else { vec![1] };
            (tensor.values.len() as i64, shape, strides)
        })
        .collect();
    let keys: Vec<_> = (0..tensors.len()).map(|key| key.to_string()).collect();
    let items = tensors.iter().zip(&keys).zip(&described);
    let items: Vec<_> = items
        .map(|((tensor, key), (numel, shape, strides))| {
            let storage = "FloatStorage";
            let numel = *numel;
            (&*tensor.name, forge::Tensor { storage, key, numel, offset: 0, shape, strides })
        })
        .collect();
    let data: Vec<_> = tensors.iter().map(|tensor| bytes(&tensor.values)).collect();
    let storages: Vec<_> = keys.iter().zip(&data).map(|(key, data)| (&**key, &**data)).collect();
    forge::torch(&forge::pickle(&[&forge::dict(&items)]), &storages)
}

/// A finite half-precision number.
pub fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, bits >> 10 & 31, f32::from(bits & 1023));
    let value = match exponent {
        0 => fraction * 2f32.powi(-24),
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(i32::from(exponent) - 15),
    };
    if sign == 1 { -value } else { value }
}
