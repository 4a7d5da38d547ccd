//! Model folder → checked, named views of its files.

pub(crate) mod checkpoint;
pub(crate) mod config;
mod cursor;
pub(crate) mod fields;
pub(crate) mod gguf;
pub(crate) mod inventory;
pub(crate) mod json;
pub(crate) mod lora;
pub(crate) mod mapped;
pub(crate) mod model_dir;
pub(crate) mod model_files;
pub(crate) mod model_path;
pub(crate) mod packed;
pub(crate) mod peft;
pub(crate) mod prefix;
pub(crate) mod quantize;
pub(crate) mod random;
pub(crate) mod regular;
pub(crate) mod temporary;
pub(crate) mod utf8;
pub(crate) mod variant;
pub(crate) mod weights;
