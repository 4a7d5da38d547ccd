//! Rows that are read together, and how long that takes.

use std::fs;
use std::time::{Duration, Instant};

use glm_kernels::GroupForm;
use half::f16;
use tempfile::TempDir;

use super::*;
use crate::files::checkpoint::{SafetensorsLayout, TensorSpec};

const LAYER: &str = "x";

/// A file with a matrix of four bits and groups of 32 columns.
fn matrix(layout: Layout, rows: usize, cols: usize) -> (TempDir, PackedMatrix) {
    let names = layout.names();
    let groups = cols / 32;
    let axes = |n| if names.transposed { [n, rows] } else { [rows, n] };
    let [integers, zeros] = names.packed;
    let spec = |name: &str, dtype, shape: [usize; 2]| {
        TensorSpec::new(format!("{LAYER}{name}"), dtype, shape)
    };
    let mut specs = vec![
        spec(names.integers, Dtype::I32, words::shape(axes(cols), integers, Bits::Four)),
        spec(names.zeros, Dtype::I32, words::shape(axes(groups), zeros, Bits::Four)),
        spec(names.scales, Dtype::F16, axes(groups)),
    ];
    specs
        .extend(names.shape.map(|name| TensorSpec::new(format!("{LAYER}{name}"), Dtype::I32, [2])));
    let file = SafetensorsLayout::new(&specs, &[]);
    let mut bytes = file.header().to_vec();
    bytes.resize(file.file_len(), 0);
    let mut state = 1u32;
    for index in 0..2 {
        for byte in &mut bytes[file.range(index)] {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let packing = Packing {
        layout,
        name: "",
        less_one: true,
        symmetric: false,
        reordered: false,
        group: None,
    };
    let found = PackedMatrix::find(&checkpoint, LAYER, [rows, cols], &packing).unwrap();
    (dir, found.unwrap())
}

#[test]
fn rows_that_are_read_together_are_those_that_are_read_alone() {
    for layout in [Layout::Gptq, Layout::Awq, Layout::CompressedTensors] {
        let (_dir, matrix) = matrix(layout, 24, 64);
        for (first, count) in [(0, 8), (3, 8), (5, 1), (7, 17), (16, 8), (0, 24)] {
            let alone: Vec<_> =
                (first..first + count).flat_map(|row| matrix.rows(row, 1).unwrap()).collect();
            assert_eq!(matrix.rows(first, count).unwrap(), alone, "{layout:?} {first} {count}");
        }
    }
}

/// Measured with one thread, the best of three: 0.13 s for both, and 0.42 s for AWQ if each row is read alone.
#[test]
#[ignore = "needs an optimized build and a quiet machine"]
fn awq_is_read_about_as_fast_as_gptq() {
    let (rows, cols) = (4096, 13_696);
    let time = |layout, together: usize| {
        let (_dir, matrix) = matrix(layout, rows, cols);
        let mut integers = vec![0; cols];
        let mut numbers = vec![f16::ZERO; cols / 32 * 2];
        let mut read = || {
            let started = Instant::now();
            for first in (0..rows).step_by(together) {
                let values = matrix.rows(first, together).unwrap();
                for (row, values) in (first..).zip(values.chunks_exact(cols)) {
                    let form = GroupForm::ZeroPoint;
                    matrix.pack(row, values, form, &mut integers, &mut numbers).unwrap();
                }
            }
            started.elapsed()
        };
        (0..3).map(|_| read()).fold(Duration::MAX, Duration::min)
    };
    let [gptq, awq] = [Layout::Gptq, Layout::Awq].map(|layout| time(layout, 8));
    let alone = [Layout::Gptq, Layout::Awq].map(|layout| time(layout, 1));
    println!("GPTQ {gptq:?}, AWQ {awq:?}, alone {alone:?}");
    assert!(awq < 2 * gptq, "GPTQ {gptq:?}, AWQ {awq:?}");
}
