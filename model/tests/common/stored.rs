//! Tensors with their bytes, and a file of them.

use glm_model::{SafetensorsLayout, TensorSpec};

/// A tensor and its bytes.
pub type Stored = (TensorSpec, Vec<u8>);

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
