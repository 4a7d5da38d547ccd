//! All instruction sets agree with the definition of a linear layer, whatever the bytes of its weights are.

#![no_main]

use glm_kernels::{
    Activation, BLOCK, Bits, GroupForm, Input, Isa, Linear, Matrix, Panels, Q8Rows, Shape, Storage,
    reference,
};
use half::f16;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, u8, bool, u8, Vec<u8>, Vec<i8>)| {
    let (tokens, rows, cols, four, group, bytes, x) = input;
    let (tokens, rows) = (usize::from(tokens % 40) + 1, usize::from(rows % 70) + 1);
    let cols = usize::from(cols) * 3 + 1;
    let bits = if four { Bits::Four } else { Bits::Eight };
    let shape = match group % 4 {
        0 => Shape::per_row(rows, cols, bits),
        n => Shape::grouped(rows, cols, bits, 16 << n),
    };
    let shape = shape.with_form(match group & 20 {
        4 if four => GroupForm::Minimum,
        20 if four => GroupForm::ZeroPoint,
        _ => GroupForm::Scale,
    });
    let shape = if group & 8 > 0 { shape.rotated() } else { shape };
    let weights: Vec<u8> =
        bytes.iter().copied().chain([0x5a]).cycle().take(shape.bytes()).collect();
    let scales = vec![f16::from_f32(0.25); shape.scales()];
    // With 127 in every block, integers are their own quantization; what is rotated is so afterwards.
    let mut x: Vec<_> = x.iter().copied().chain([3]).cycle().take(tokens * cols).collect();
    for row in x.chunks_mut(cols) {
        row.iter_mut().step_by(BLOCK).for_each(|x| *x = 127);
    }
    let mut x: Vec<f32> = x.into_iter().map(|x| f32::from(x.max(-127))).collect();
    shape.rotation.apply(&mut x);
    let weight = Matrix::new(rows, cols, Storage::Panels(Panels::new(shape, &weights, &scales)));
    let linear = Linear { weight, bias: None, activation: Activation::None };
    let (exact, bound) = (reference::linear(&linear, &x), reference::magnitude(&linear, &x));
    for isa in Isa::available() {
        let mut quantized = Q8Rows::default();
        quantized.quantize(isa, &x, cols, shape.rotation);
        for input in [Input::F32(&x), Input::Q8(&quantized)] {
            let mut y = vec![f32::NAN; tokens * rows];
            linear.forward(isa, input, &mut y);
            for ((y, exact), bound) in y.iter().zip(&exact).zip(&bound) {
                assert!((y - exact).abs() <= 1e-6 * bound, "{isa}: {y} should be {exact}");
            }
        }
    }
});
