//! All instruction sets agree with the definition of a linear layer, whatever the bytes of its weights are.

#![no_main]

use glm_kernels::{
    Activation, Bits, Input, Isa, Linear, Matrix, Panels, Shape, Storage, reference,
};
use half::f16;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, bool, u8, Vec<u8>, Vec<i8>)| {
    let (rows, cols, four, group, bytes, x) = input;
    let (rows, cols) = (usize::from(rows % 20) + 1, usize::from(cols) + 1);
    let bits = if four { Bits::Four } else { Bits::Eight };
    let shape = match group % 4 {
        0 => Shape::per_row(rows, cols, bits),
        n => Shape::grouped(rows, cols, bits, 16 << n),
    };
    let weights: Vec<u8> =
        bytes.iter().copied().chain([0x5a]).cycle().take(shape.bytes()).collect();
    let scales = vec![f16::from_f32(0.25); shape.scales()];
    let x: Vec<f32> = x.iter().copied().chain([3]).cycle().take(cols).map(f32::from).collect();
    let weight = Matrix::new(rows, cols, Storage::Panels(Panels::new(shape, &weights, &scales)));
    let linear = Linear { weight, bias: None, activation: Activation::None };
    let (exact, bound) = (reference::linear(&linear, &x), reference::magnitude(&linear, &x));
    for isa in Isa::available() {
        let mut y = vec![f32::NAN; rows];
        linear.forward(isa, Input::F32(&x), &mut y);
        for ((y, exact), bound) in y.iter().zip(&exact).zip(&bound) {
            assert!((y - exact).abs() <= 1e-6 * bound, "{isa}: {y} should be {exact}");
        }
    }
});
