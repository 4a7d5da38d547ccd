//! A small model embedded in the program (feature `demo`): the architecture of ChatGLM-6B with a few million parameters, trained
//! from random weights by the code in `model/demo/`. It can only do the few tasks of its training data.
//!
//! ```
//! use glm_model::{Conversation, ConversationOptions, Options, Sampling, demo};
//!
//! let bundle = demo::bundle(&Options::default())?;
//! let mut options = ConversationOptions::new(bundle.request(0));
//! options.request.sampling = Sampling::greedy();
//! let answer = Conversation::new(&bundle, options)?.ask("你好")?.finish()?;
//! assert!(answer.text.contains("你好"), "{}", answer.text);
//! # Ok::<(), glm_model::Error>(())
//! ```

use crate::error::Result;
use crate::files::checkpoint::{Checkpoint, Format};
use crate::files::config::Config;
use crate::files::model_files::ModelFiles;
use crate::generate::bundle::Bundle;
use crate::network::model::{Model, Options};
use crate::text::chat::Template;
use crate::text::tokenizer::Tokenizer;

/// The alignment that the kernels need for weights.
#[repr(C, align(64))]
struct Aligned<T>(T);

static WEIGHTS: Aligned<[u8; include_bytes!("../demo/int4/model.safetensors").len()]> =
    Aligned(*include_bytes!("../demo/int4/model.safetensors"));
const FILES: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("../demo/int4/config.json")),
    ("ice_text.model", include_bytes!("../demo/int4/ice_text.model")),
    ("tokenizer_config.json", include_bytes!("../demo/int4/tokenizer_config.json")),
];

/// The model, in INT4. Its weights are used in place, in the image of the program.
///
/// # Errors
/// If an option is outside its range.
pub fn model(options: &Options) -> Result<Model> {
    let checkpoint = Checkpoint::from_bytes(Format::Safetensors, &WEIGHTS.0[..])?;
    let files = ModelFiles::new(Config::from_files(&FILES)?, &checkpoint)?;
    Model::load(&files, options, &mut |_, _| {})
}

/// The model with its tokenizer and its template.
///
/// # Errors
/// If an option is outside its range.
pub fn bundle(options: &Options) -> Result<Bundle> {
    let tokenizer = tokenizer()?;
    let template = template(&tokenizer)?;
    Bundle::new(model(options)?, tokenizer, template)
}

/// Its tokenizer.
///
/// # Errors
/// Never, unless the program file is damaged.
pub fn tokenizer() -> Result<Tokenizer> {
    Tokenizer::from_files(&FILES)
}

/// Its chat template.
///
/// # Errors
/// Never, unless `tokenizer` belongs to another model.
pub fn template(tokenizer: &Tokenizer) -> Result<Template> {
    Template::from_files(&FILES, tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_not_copied() {
        let checkpoint = Checkpoint::from_bytes(Format::Safetensors, &WEIGHTS.0[..]).unwrap();
        for name in checkpoint.names() {
            let bytes = checkpoint.tensor(name).unwrap().bytes();
            assert!(WEIGHTS.0.as_ptr_range().contains(&bytes.as_ptr()), "{name} was copied");
            assert!(bytes.as_ptr().addr().is_multiple_of(64), "{name} is not aligned");
        }
        let model = model(&Options::default()).unwrap();
        assert_eq!(model.inventory().copied_bytes, 0);
        assert!(model.inventory().is_quantized && model.inventory().is_head_tied);
        model.check_tokenizer(&tokenizer().unwrap()).unwrap();
    }
}
