//! Tensors with their bytes, and a file of them.

use glm_model::{Checkpoint, SafetensorsLayout, TensorSpec};

/// A tensor and its bytes.
pub type Stored = (TensorSpec, Vec<u8>);

/// The tensors of a checkpoint, by their names.
#[allow(dead_code, reason = "each test file uses its part")]
pub fn stored(checkpoint: &Checkpoint) -> Vec<Stored> {
    let tensors = checkpoint.names().map(|name| {
        let tensor = checkpoint.tensor(name).unwrap();
        let spec = TensorSpec::new(name, tensor.dtype(), tensor.shape());
        (spec, tensor.bytes().to_vec())
    });
    tensors.collect()
}

/// A file with these tensors.
pub fn safetensors(tensors: &[Stored]) -> Vec<u8> {
    let specs: Vec<_> = tensors.iter().map(|(spec, _)| spec.clone()).collect();
    let layout = SafetensorsLayout::new(&specs, &[]);
    let mut file = layout.header().to_vec();
    file.resize(layout.file_len(), 0);
    for (index, (_, bytes)) in tensors.iter().enumerate() {
        file[layout.range(index)].copy_from_slice(bytes);
    }
    file
}
